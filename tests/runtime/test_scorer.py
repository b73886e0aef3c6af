"""Passes next to each other give what passes after each other give."""

import shutil
import threading

import numpy as np
import pytest

from ranker.records import Group
from ranker.runtime import onnx_scorer
from ranker.runtime.onnx_scorer import OnnxScorer
from tests.support.selection import cases

GROUPS = [Group(f"prompt {i}", (f"an answer {i} " * (i % 9 + 1), "another")) for i in range(60)]


@pytest.fixture
def counted(monkeypatch):
    """Threads of every session that was opened."""
    opened = []
    original = onnx_scorer.open_session

    def counting(path, *, threads, **options):
        opened.append(threads)
        return original(path, threads=threads, **options)

    monkeypatch.setattr(onnx_scorer, "open_session", counting)
    return opened


@pytest.mark.full
@pytest.mark.parametrize("kind", cases(["model", "pointwise"], "model".__eq__))
def test_passes_next_to_each_other_change_no_score(kind, request, counted):
    path = request.getfixturevalue(kind)
    counted.clear()  # of making the file
    beside, alone = (
        OnnxScorer(path, threads=3, max_tokens_per_forward=64),
        OnnxScorer(path, threads=1, max_tokens_per_forward=64),
    )
    for a, b in zip(beside.score(GROUPS), alone.score(GROUPS), strict=True):
        assert a.error is None
        np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)
    assert counted == [1, 1]


def test_a_single_pass_has_all_threads_in_a_session_that_is_opened_once(model, counted):
    scorer = OnnxScorer(model, threads=2)
    assert counted == [1]
    first, again = scorer.score(GROUPS[:1]), scorer.score(GROUPS[:1])
    assert counted == [1, 2]
    np.testing.assert_array_equal(first[0].scores, again[0].scores)
    np.testing.assert_allclose(first[0].scores, scorer.score(GROUPS)[0].scores, atol=1e-5)
    assert counted == [1, 2]


def test_a_large_graph_is_opened_once_with_all_threads(model, counted, monkeypatch):
    monkeypatch.setattr(onnx_scorer, "BESIDE_BYTES", 100)
    scorer = OnnxScorer(model, threads=2)
    scorer.score(GROUPS[:1])
    scorer.score(GROUPS)
    assert counted == [2]


def test_a_file_that_was_replaced_is_not_mixed_with_the_one_that_was_loaded(model, tmp_path, counted, caplog):
    path = tmp_path / "model.onnx"
    shutil.copy(model, path)
    scorer = OnnxScorer(path, threads=2)
    path.unlink()
    shutil.copy(model, path)
    (result,) = scorer.score(GROUPS[:1])
    np.testing.assert_allclose(result.scores, OnnxScorer(model, threads=1).score(GROUPS[:1])[0].scores, atol=1e-5)
    assert "it was replaced" in caplog.text
    path.unlink()
    assert scorer.score(GROUPS[:1])[0].error is None
    assert counted[:1] == [1]
    assert 2 not in counted


def test_a_pass_that_fails_is_tried_again_in_halves_next_to_others(pointwise, monkeypatch):
    scorer = OnnxScorer(pointwise, threads=3)
    expected, forward = scorer.score(GROUPS), scorer._forward

    def failing(arrays, session=None):
        if len(arrays["input_ids"]) > 2:
            raise MemoryError("Failed to allocate 7 GB")
        return forward(arrays, session)

    monkeypatch.setattr(scorer, "_forward", failing)
    for got, want in zip(scorer.score(GROUPS), expected, strict=True):
        assert got.error is None
        np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)


def test_as_many_passes_as_threads_run_at_once(pointwise, monkeypatch):
    scorer = OnnxScorer(pointwise, threads=3)
    together, forward = threading.Barrier(3, timeout=20), scorer._forward

    def meeting(arrays, session=None):
        together.wait()
        return forward(arrays, session)

    monkeypatch.setattr(scorer, "_forward", meeting)
    groups = [Group("p", (f"{number} of equal length",)) for number in range(3)]
    assert all(result.error is None for result in scorer.score(groups))


def test_a_single_pass_beside_others_has_one_thread(model, counted):
    scorer = OnnxScorer(model, threads=2)
    scorer._running.add(-1)
    scorer.score(GROUPS[:1])
    assert counted == [1]
    scorer._running.clear()
    scorer.score(GROUPS[:1])
    assert counted == [1, 2]
