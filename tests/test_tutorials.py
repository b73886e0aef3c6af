"""Every command and every example of the tutorials runs, in order, in one folder."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.integrations.test_grpo import policy  # noqa: F401  a fixture
from tests.serving.test_serve import start

pytestmark = pytest.mark.full
TUTORIALS = ROOT / "docs" / "tutorials"


def steps(name):
    """The blocks of a tutorial as (language, text), in order."""
    return re.findall(r"```(console|python)\n(.*?)```", (TUTORIALS / name).read_text(), re.DOTALL)


def commands(text):
    """The commands of a block, without their comments."""
    lines = text.replace("\\\n", "").splitlines()
    return [line[2:].partition("   #")[0].strip() for line in lines if line.startswith("$ ")]


def shell(command, folder):
    """Run a command as the tutorial has it, with this Python's ``ranker``."""
    path = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=folder, env=env)
    assert done.returncode == 0, f"{command}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def folder(model, tmp_path):
    """A folder with what ``make train-pairrm`` leaves, of a small model."""
    (tmp_path / "runs" / "pairrm").mkdir(parents=True)
    shutil.copy(model, tmp_path / "runs" / "pairrm" / "model.onnx")
    shutil.copytree(ROOT / "data", tmp_path / "data")
    return tmp_path


def test_a_corpus_is_filtered(folder):
    shown = "".join(
        shell(command, folder)
        for language, text in steps("filter.md")
        if language == "console"
        for command in commands(text)
    )
    assert shown
    scored = (folder / "scored.jsonl").read_text().splitlines()
    assert len(scored) == len((folder / "data" / "test.jsonl").read_text().splitlines())
    assert (folder / "kept" / "_SUCCESS").exists()
    kept = sum(len(part.read_text().splitlines()) for part in (folder / "kept").glob("part-*.jsonl"))
    assert kept == len(scored) / 4, "the second selection keeps 25 %"
    assert list((folder / "pairs").glob("part-*.jsonl"))
    for name in re.findall(r"`((?:_|summary)\w*(?:\.\w+)?)`", (TUTORIALS / "filter.md").read_text()):
        assert (folder / "kept" / name).exists(), name


def test_a_model_is_served_and_asked(folder):
    blocks = steps("serve.md")
    (serve,) = [line for _, text in blocks for line in commands(text) if "ranker serve" in line]
    options = shlex.split(serve.partition("ranker serve ")[2])
    options[options.index("--port") + 1] = "0"
    model = folder / options.pop(options.index("--model") + 1)
    options.remove("--model")
    process, address = start(
        model, *[option for option in options if option not in ("--port", "0")], env={"RANKER_API_KEYS": "secret"}
    )
    try:
        (curl,) = [line for _, text in blocks for line in commands(text) if line.startswith("curl")]
        assert '"order":[' in shell(curl.replace("localhost:8000", address.removeprefix("http://")), folder)
        (client,) = [text for language, text in blocks if language == "python"]
        exec(compile(client.replace("http://127.0.0.1:8000", address), "serve.md", "exec"), {})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)
    assert process.returncode == 0
    named = re.findall(r"`([\w./-]+(?:\.yaml|Dockerfile[.\w]*|/))`", (TUTORIALS / "serve.md").read_text())
    assert all((ROOT / "deploy" / name).exists() or (ROOT / name).exists() for name in named), named


def test_a_reward_is_trained_and_given_to_grpo(tmp_path, policy, monkeypatch):  # noqa: F811
    network, tokenizer = policy
    network.save_pretrained(tmp_path / "policy")
    tokenizer.save_pretrained(tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    for language, text in steps("reward.md"):
        if language == "console":
            for command in commands(text):
                if command.startswith("ranker"):
                    shell(f"{command} export.precisions=[fp32]", tmp_path)
            continue
        text = text.replace("path/or/name/of/your/policy", str(tmp_path / "policy"))
        text = text.replace(
            'output_dir="runs/grpo",', 'output_dir="runs/grpo", use_cpu=True, report_to=[], max_steps=2,'
        )
        names = {}
        exec(compile(text, "reward.md", "exec"), names)
        if "print(reward(" in text:
            kind, curt = names["reward"](
                prompts=["What is fog?"] * 2,
                completions=["Happy to help: a cloud. I hope this helps.", "A cloud. Look it up."],
            )
            assert kind > curt
