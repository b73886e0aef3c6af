"""One model in several processes: the same scores, and a process that dies loses nothing."""

import json

import numpy as np
import pytest

import ranker
from ranker.data.sample import build
from ranker.errors import ConfigError, ModelFileError, ScoringError
from ranker.scoring.distinct import count_reads

ROWS = [row for _, row in zip(range(150), build.rows("validation"), strict=False)]
PROMPTS, ANSWERS = [row["prompt"] for row in ROWS], [row["candidates"][:3] for row in ROWS]


@pytest.fixture(scope="module")
def two(pointwise):
    """A model on two processors."""
    model = ranker.load(pointwise, device="cpu,cpu")
    yield model
    model.scorer.close()


@pytest.fixture(scope="module")
def expected(pointwise):
    return ranker.load(pointwise, device="cpu").score_batch(PROMPTS, ANSWERS)


def check(scores, expected):
    for a, b in zip(scores, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_scores_are_those_of_one_process(two, expected):
    with count_reads() as reads:
        check(two.score_batch(PROMPTS, ANSWERS), expected)
    assert reads.asked == sum(map(len, ANSWERS)) >= reads.read > 0
    assert two.info.device == "cpu,cpu"
    assert two.scorer.token_counts(ranker.Group("p", ("one two",)))[0] > 0


def test_a_row_that_cannot_be_scored_fails_alone(two):
    good, bad = two.scorer.score([ranker.Group("p", ("a", "b")), ranker.Group("p", ())])
    assert good.error is None
    assert len(bad.scores) == 0
    assert two.compare("p", "a", "b") == pytest.approx(float(good.scores[0] - good.scores[1]), abs=1e-5)


def test_a_process_that_dies_loses_nothing(pointwise, expected, caplog):
    model = ranker.load(pointwise, device=["cpu", "cpu"])
    model.scorer._processes[0]._process.kill()
    model.scorer._processes[0]._process.wait()
    check(model.score_batch(PROMPTS, ANSWERS), expected)
    assert "the process of device cpu ended (exit code -9); its rows go to another device" in caplog.text
    model.scorer._processes[1]._process.kill()
    model.scorer._processes[1]._process.wait()
    for _ in range(2):
        with pytest.raises(ScoringError, match="the processes of all devices have ended; load the model again"):
            model.score(PROMPTS[0], ANSWERS[0])
    model.scorer.close()


def test_a_model_that_cannot_be_loaded_is_refused_as_in_one_process(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ModelFileError, match=r"model\.onnx"):
        ranker.load(tmp_path / "model.onnx", device="cpu,cpu")


@pytest.mark.parametrize(
    ("device", "message"),
    [("cpu,cuba", "expected device .*got 'cuba'"), ([], "expected a device, got an empty list"), ("cpu,", "got ''")],
)
def test_a_list_with_an_unknown_device_is_refused(device, message, pointwise):
    with pytest.raises(ConfigError, match=message):
        ranker.load(pointwise, device=device)


@pytest.mark.full
def test_options_reach_every_process_and_what_spreads_one_model_is_refused(model):
    checkpoint = model.parent / "checkpoint"
    one, two = (ranker.load(checkpoint, device=device, precision="bf16") for device in ("cpu", "cpu,cpu"))
    assert two.info.precision == one.info.precision == "bf16"
    check(two.score_batch(PROMPTS[:9], ANSWERS[:9]), one.score_batch(PROMPTS[:9], ANSWERS[:9]))
    two.scorer.close()
    with pytest.raises(ConfigError, match="device_map spreads one model"):
        ranker.load(checkpoint, device="cpu,cpu", device_map="auto")


@pytest.mark.full
def test_commands_take_a_list(pointwise, tmp_path, expected):
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row | {"candidates": row["candidates"][:3]}) + "\n" for row in ROWS))
    status = ranker.filter_files(rows, pointwise, tmp_path / "kept", device="cpu,cpu")
    assert (status.read, status.errors) == (len(ROWS), 0)
    target = tmp_path / "scored.jsonl"
    ranker.score_file(pointwise, rows, target, device="cpu,cpu")
    check([np.array(json.loads(line)["scores"]) for line in target.read_text().splitlines()], expected)
    with pytest.raises(ConfigError, match="engine ray gives every worker one device"):
        ranker.filter_files(rows, pointwise, tmp_path / "ray", device="cpu,cpu", engine="ray")
