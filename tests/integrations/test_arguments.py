"""Every integration takes its model the same way and refuses what it does not honour."""

import copy
import inspect
import pickle
from pathlib import Path

import pytest
from datatrove.data import Document

import ranker
from ranker.batch_scorer import RESULTS
from ranker.errors import ConfigError
from ranker.integrations import openrlhf, trl, verl
from ranker.integrations.arguments import batches, refuse
from ranker.integrations.datatrove import RankerFilter
from ranker.integrations.distilabel import RankerStep
from ranker.integrations.llm_blender import Blender
from ranker.integrations.rewards import GroupRewards
from ranker.integrations.sentence_transformers import CrossEncoder

ENTRIES = {
    "llm_blender": Blender,
    "sentence_transformers": CrossEncoder,
    "trl judge": trl.PairRMJudge,
    "trl": trl.reward_function,
    "openrlhf": openrlhf.reward_function,
    "verl": verl.reward_function,
    "verl batch": verl.batch_reward_function,
    "verl loop": verl.async_reward_function,
    "rewards": GroupRewards,
    "datatrove": lambda model, **options: RankerFilter(model, 0.0, **options),
    "distilabel": lambda model, **options: RankerStep(name="rank", model=model, **options),
}

ADDED = [f"mine_{name}" for name in RESULTS]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_takes_a_path_and_the_options_of_load(pointwise, entry):
    for model in (Path(pointwise), str(pointwise)):
        assert ENTRIES[entry](model, threads=1) is not None
    with pytest.raises(ConfigError, match="threadz"):
        ENTRIES[entry](str(pointwise), threadz=1)


@pytest.mark.parametrize("entry", sorted(set(ENTRIES) - {"distilabel"}))
def test_an_entry_takes_a_loaded_model_without_options(pointwise, entry):
    loaded = ranker.load(pointwise)
    ENTRIES[entry](loaded)
    with pytest.raises(ConfigError, match=r"the model is loaded already; give threads to ranker\.load"):
        ENTRIES[entry](loaded, threads=1)


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_option_that_load_does_not_have_is_refused_by_name(pointwise, entry):
    with pytest.raises(ConfigError, match="does not honour thread; .*did you mean 'threads'"):
        ENTRIES[entry](pointwise, thread=1)


def test_a_distilabel_step_refuses_a_loaded_model(pointwise):
    with pytest.raises(ConfigError, match="a step is sent to other processes; give the model's path"):
        RankerStep(name="rank", model=ranker.load(pointwise))


def test_a_loaded_model_stays_in_its_process_and_is_shared_by_copies(pointwise):
    loaded = ranker.load(pointwise)
    scorer = RankerFilter(loaded, 0.0).scorer
    assert copy.deepcopy(scorer).scorer is loaded.scorer
    with pytest.raises(ConfigError, match="cannot be sent to another process; give its path"):
        pickle.dumps(scorer)
    assert pickle.loads(pickle.dumps(RankerFilter(pointwise, 0.0).scorer)).model == str(pointwise)


def test_datatrove_adds_the_columns_of_the_batch_scorer_with_the_prefix(pointwise):
    loaded = ranker.load(pointwise)
    keep = RankerFilter(loaded, -100.0, columns={"prompt": "question"}, prefix="mine_")
    good = Document(text="a saw", id="1", metadata={"question": "p"})
    bad = Document(text="a saw", id="2", metadata={})
    assert keep.filter_batch([good, bad]) == [True, (False, "ranker_failed")]
    assert [name for name in good.metadata if name != "question"] == ADDED
    assert good.metadata["mine_scores"] == pytest.approx(loaded.score("p", ["a saw"]).tolist(), abs=1e-5)
    assert list(bad.metadata) == ADDED
    assert bad.metadata["mine_scores"] is None
    assert "prompt" in bad.metadata["mine_error"]
    with pytest.raises(ConfigError, match="a row has 'mine_scores' already; choose another prefix than 'mine_'"):
        keep.filter(good)


def test_distilabel_adds_the_columns_of_the_batch_scorer_with_the_prefix(model):
    step = RankerStep(
        name="rank", model=model, columns={"prompt": "question", "candidates": "answers"}, prefix="mine_", threads=1
    )
    assert (step.inputs, step.outputs) == (["question", "answers"], ADDED)
    step.name = "renamed"
    copied = RankerStep.from_dict(step.dump())
    assert (copied.name, copied.options, copied.columns) == ("renamed", {"threads": 1}, step.columns)
    step.load()
    row = {"question": "p", "answers": ["a saw", "pear"], "id": 3}
    ((scored,),) = step.process([dict(row)])
    assert list(scored) == [*row, *ADDED]
    assert scored["mine_order"] == ranker.load(model).rank("p", row["answers"]).order.tolist()
    with pytest.raises(ConfigError, match="a row has 'mine_scores' already"):
        list(step.process([scored]))


@pytest.mark.parametrize("entry", ["verl", "verl batch", "verl loop", "datatrove", "distilabel"])
def test_a_column_that_is_not_read_is_refused(pointwise, entry):
    with pytest.raises(ConfigError, match="'prompt'.*for 'chosen'"):
        ENTRIES[entry](pointwise, columns={"chosen": "x"})


def test_arguments_that_the_host_is_told_to_pass_are_refused(pointwise):
    with pytest.raises(ConfigError, match="verl's compute_score does not honour scale"):
        verl.reward_function(pointwise)("", "a", None, {"prompt": "p"}, scale=2.0)
    with pytest.raises(ConfigError, match="verl's compute_score does not honour scale"):
        verl.batch_reward_function(pointwise)([""], ["a"], [None], [{"prompt": "p"}], scale=2.0)
    with pytest.raises(ConfigError, match="OpenRLHF's reward_func does not honour images"):
        openrlhf.reward_function(pointwise)(["pa"], ["p"], [None], images=["x"])


def test_the_library_s_arguments_of_cross_encoder_are_known_or_refused(pointwise):
    from sentence_transformers import CrossEncoder as Theirs

    encoder = CrossEncoder(pointwise)
    for name, call in (("predict", encoder.predict), ("rank", encoder.rank)):
        known = inspect.signature(call).parameters
        for argument in inspect.signature(getattr(Theirs, name)).parameters:
            if argument not in known and argument not in ("self", "kwargs"):
                with pytest.raises(ConfigError, match=f"CrossEncoder.{name} does not honour {argument}"):
                    call(*([[("p", "a")]] if name == "predict" else ["p", ["a"]]), **{argument: object()})


def test_defaults_of_the_host_are_not_refused():
    refuse("call", {"a": None, "b": False, "c": 0, "d": "", "e": [], "f": {}})
    with pytest.raises(ConfigError, match="call does not honour a, b"):
        refuse("call", {"a": 1, "b": ["x"], "c": None})


@pytest.mark.parametrize(
    ("sizes", "limit", "expected"),
    [
        ([1, 1, 1], None, [3]),
        ([1, 1, 1], 2, [2, 1]),
        ([3, 1, 1, 5, 1], 2, [1, 2, 1, 1]),
        ([], 2, []),
    ],
)
def test_batches_hold_at_most_the_limit_and_keep_groups_whole(sizes, limit, expected):
    slices = list(batches(sizes, limit, progress=False))
    assert [part.stop - part.start for part in slices] == expected
    assert [i for part in slices for i in range(len(sizes))[part]] == list(range(len(sizes)))


def test_a_batch_size_below_one_is_refused(pointwise):
    with pytest.raises(ConfigError, match="expected a batch size of at least 1, got 0"):
        CrossEncoder(pointwise).predict([("p", "a")], batch_size=0)


def test_a_batch_size_bounds_what_the_model_gets_at_once(pointwise, monkeypatch, capsys):
    loaded = ranker.load(pointwise)
    calls = []
    score = loaded.scorer.score
    monkeypatch.setattr(
        loaded.scorer, "score", lambda groups, **kwargs: calls.append(len(groups)) or score(groups, **kwargs)
    )
    pairs = [(f"p {i}", "a saw") for i in range(5)]
    scores = CrossEncoder(loaded).predict(pairs, batch_size=2, show_progress_bar=True)
    assert calls == [2, 2, 1]
    assert "5/5" in capsys.readouterr().err
    assert CrossEncoder(loaded).predict(pairs) == pytest.approx(scores, abs=1e-5)
    calls.clear()
    Blender(loaded).rank(["p"] * 5, [["a", "b"]] * 5, batch_size=3, disable_tqdm=True)
    assert calls == [3, 2]
    assert capsys.readouterr().err == ""
