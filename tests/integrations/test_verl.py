"""verl's reward loop awaits rewards: samples are gathered, and verl's own loader and manager take the function."""

import asyncio
import json
import subprocess
import sys

import numpy as np
import pytest

import ranker
from ranker.errors import ConfigError, DataError
from ranker.integrations import verl
from tests.conftest import ROOT
from tests.serving.test_serve import start

PEER = ROOT / "build" / "peers" / "verl"
ANSWERS = ["a saw", "b hammer", "pear", "a very long answer indeed"]


def ask(compute_score, samples):
    async def together():
        calls = (compute_score("set", answer, None, {"prompt": prompt, "num_turns": 2}) for prompt, answer in samples)
        return await asyncio.gather(*calls, return_exceptions=True)

    return asyncio.run(together())


@pytest.fixture
def counted(monkeypatch):
    sizes = []
    score = verl.GroupRewards.__call__
    monkeypatch.setattr(
        verl.GroupRewards,
        "__call__",
        lambda self, prompts, completions: (sizes.append(len(prompts)), score(self, prompts, completions))[1],
    )
    return sizes


def test_samples_that_come_together_are_scored_together(pointwise, counted):
    samples = [(f"p{i}", answer) for i in range(5) for answer in ANSWERS]
    rewards = ask(verl.async_reward_function(pointwise), samples)
    assert counted == [20]
    loaded = ranker.load(pointwise)
    expected = np.concatenate(loaded.score_batch([f"p{i}" for i in range(5)], [ANSWERS] * 5))
    np.testing.assert_allclose(rewards, expected, atol=1e-5)


def test_a_model_that_compares_gets_whole_groups_whatever_their_order(model, counted):
    samples = [(f"p{i}", answer) for answer in ANSWERS for i in range(3)]
    rewards = ask(verl.async_reward_function(model, rollouts=4), samples)
    assert sum(counted) == 12
    loaded = ranker.load(model)
    for prompt in range(3):
        np.testing.assert_allclose(rewards[prompt::3], loaded.score(f"p{prompt}", ANSWERS), atol=1e-5)
    alone = ask(verl.async_reward_function(model), samples[:1])
    assert isinstance(alone[0], ConfigError)
    assert "expected at least two completions" in str(alone[0])


def test_a_group_that_never_fills_is_scored_as_it_is(model, caplog):
    compute_score = verl.async_reward_function(model, rollouts=3, patience_s=0.2)
    rewards = ask(compute_score, [("p", "a saw"), ("p", "b hammer"), ("q", "pear")])
    np.testing.assert_allclose(rewards[:2], ranker.load(model).score("p", ANSWERS[:2]), atol=1e-5)
    assert rewards[2] == 0
    assert "2 of 3 completions of a prompt came in time" in caplog.text
    assert "1 of 1 samples could not be scored; their reward is 0" in caplog.text


def test_a_lone_completion_that_is_late_is_scored_by_a_model_that_needs_no_others(pointwise):
    (reward,) = ask(verl.async_reward_function(pointwise, rollouts=3, patience_s=0.1), [("q", "pear")])
    assert reward == pytest.approx(float(ranker.load(pointwise).score("q", ["pear"])[0]), abs=1e-5)


def test_a_sample_that_is_cancelled_leaves_its_group(model, counted):
    async def run():
        compute_score = verl.async_reward_function(model, rollouts=2)
        call = asyncio.ensure_future(compute_score("set", "a saw", None, {"prompt": "p"}))
        await asyncio.sleep(0.05)
        call.cancel()
        rest = ("b hammer", "pear")
        return await asyncio.gather(*(compute_score("set", answer, None, {"prompt": "p"}) for answer in rest))

    rewards = asyncio.run(run())
    assert counted == [2]
    np.testing.assert_allclose(rewards, ranker.load(model).score("p", ["b hammer", "pear"]), atol=1e-5)


def test_a_function_serves_one_event_loop_after_another(pointwise):
    compute_score = verl.async_reward_function(pointwise)
    assert ask(compute_score, [("p", "a saw")]) == ask(compute_score, [("p", "a saw")])


def test_a_server_scores_for_all_workers(model, pointwise):
    for path, rollouts in ((model, 4), (pointwise, 1)):
        process, address = start(path, env={"RANKER_API_KEYS": "secret"})
        try:
            compute_score = verl.async_reward_function(address, key="secret", rollouts=rollouts)
            rewards = ask(compute_score, [("p", answer) for answer in ANSWERS])
            np.testing.assert_allclose(rewards, ranker.load(path).score("p", ANSWERS), atol=1e-5)
            if path == model:
                (error,) = ask(verl.async_reward_function(address, key="secret"), [("p", "a saw")])
                assert "set rollouts, or serve a pointwise model" in str(error)
        finally:
            process.terminate()
            process.wait()
    with pytest.raises(ConfigError, match="leave out mode"):
        verl.async_reward_function(address, mode="win_rate")
    with pytest.raises(ConfigError, match="rollouts"):
        verl.async_reward_function(pointwise, rollouts=0)


def test_a_sample_without_its_prompt_is_named(pointwise):
    async def one():
        return await verl.async_reward_function(pointwise)("set", "a", None, {})

    with pytest.raises(DataError, match=r"extra_info\.prompt"):
        asyncio.run(one())


RUN = """
import asyncio, json, sys
import torch
from omegaconf import OmegaConf
from tensordict import TensorDict
from verl import DataProto
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl.experimental.reward_loop.reward_manager import get_reward_manager_cls

reward_file, answers, manager = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3]
config = OmegaConf.create({
    "reward": {
        "custom_reward_function": {"path": reward_file, "name": "compute_score"},
        "reward_manager": {"name": manager, "source": "register"},
        "reward_kwargs": {},
    },
    "data": {},
})

class Letters:
    pad_token_id, eos_token = 0, ""
    def decode(self, ids, skip_special_tokens=True):
        return "".join(map(chr, ids.tolist()))

function = get_custom_reward_fn(config)

async def main():
    loop = get_reward_manager_cls(manager)(config, Letters(), function)
    calls = []
    for answer in answers:
        ids = torch.tensor([list(map(ord, answer)) + [0] * 3])
        mask = torch.tensor([[1] * (4 + len(answer)) + [0] * 3])
        batch = {"prompts": torch.ones(1, 4, dtype=torch.long), "responses": ids, "attention_mask": mask}
        others = {"data_source": ["set"], "reward_model": [{"ground_truth": None}], "extra_info": [{"question": "p"}]}
        data = DataProto.from_dict(tensors=batch, non_tensors=others)
        calls.append(loop.run_single(data))
    print("REWARDS", json.dumps([result["reward_score"] for result in await asyncio.gather(*calls)]))

asyncio.run(main())
"""


@pytest.mark.skipif(not (PEER / ".ready").exists(), reason="needs make peers")
@pytest.mark.parametrize("manager", ["naive", "dapo"])
@pytest.mark.full
def test_verl_s_own_loader_and_manager_give_the_model_s_scores(manager, model, tmp_path):
    reward = tmp_path / "my_reward.py"
    reward.write_text(
        "from ranker.integrations.verl import async_reward_function\n"
        f"compute_score = async_reward_function({str(model)!r}, columns={{'prompt': 'question'}}, rollouts=4)\n"
    )
    script = tmp_path / "run.py"
    script.write_text(RUN)
    done = subprocess.run(
        [sys.executable, script, reward, json.dumps(ANSWERS), manager],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PYTHONPATH": f"{ROOT}:{PEER}", "PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("REWARDS ")]
    np.testing.assert_allclose(
        json.loads(line.removeprefix("REWARDS ")), ranker.load(model).score("p", ANSWERS), atol=1e-5
    )
