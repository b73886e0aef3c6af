"""Everyone gets what they asked for, in whatever company, or is told why not."""

import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from ranker.records import Group
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.scoring.protocol import GroupScores
from ranker.serving.batcher import (
    BATCH_ITEMS,
    MIN_PARALLEL_ITEMS,
    Batcher,
    DeadlineError,
    DrainingError,
    OverloadedError,
)
from tests.support.scorers import info_of


class Slow:
    """Lengths as scores, after the gate opens."""

    info = info_of()

    def __init__(self):
        self.gate = threading.Event()
        self.calls = []

    def score(self, groups, *, preserve_order=False):
        self.gate.wait(10)
        self.calls.append(len(groups))
        if any(c == "boom" for g in groups for c in g.candidates):
            raise RuntimeError("boom")
        return [
            GroupScores(np.array([len(c) for c in g.candidates], np.float32), np.zeros(len(g.candidates), bool))
            for g in groups
        ]


@pytest.fixture
def slow():
    scorer = Slow()
    batcher = Batcher(scorer, queue_items=1000)
    yield scorer, batcher
    scorer.gate.set()
    batcher.drain(5)


def group(*lengths):
    return Group("p", tuple("x" * n for n in lengths))


def test_what_waits_is_one_batch_and_everyone_gets_their_own(slow):
    scorer, batcher = slow
    first = batcher.submit([group(1)], seconds=9)
    time.sleep(0.1)
    others = [batcher.submit([group(i), group(i, i + 1)], seconds=9) for i in range(1, 20)]
    assert batcher.queue_length == 38
    scorer.gate.set()
    assert first.result(5)[0].scores.tolist() == [1]
    for i, future in enumerate(others, 1):
        one, two = future.result(5)
        assert one.scores.tolist() == [i]
        assert two.scores.tolist() == [i, i + 1]
    assert scorer.calls == [1, 38]
    assert batcher.queue_length == 0


def test_a_batch_is_bounded_and_a_large_request_is_whole(slow):
    scorer, batcher = slow
    batcher.submit([group(1)], seconds=9)
    time.sleep(0.1)
    futures = [batcher.submit([group(2)] * 100, seconds=9) for _ in range(4)]
    large = batcher.submit([group(3)] * 500, seconds=9)
    scorer.gate.set()
    assert len(large.result(5)) == 500
    assert all(len(f.result(5)) == 100 for f in futures)
    assert max(scorer.calls[:-1]) <= BATCH_ITEMS
    assert scorer.calls[-1] == 500


def test_a_full_queue_refuses_and_says_when(slow):
    scorer, batcher = slow
    batcher.submit([group(1)], seconds=9)
    time.sleep(0.1)
    batcher.submit([group(1)] * 900, seconds=9)
    with pytest.raises(OverloadedError, match="try again in 1 s"):
        batcher.submit([group(1)] * 200, seconds=9)
    scorer.gate.set()


def test_cancelled_and_late_work_costs_nothing(slow):
    scorer, batcher = slow
    batcher.submit([group(1)], seconds=9)
    time.sleep(0.1)
    gone = batcher.submit([group(2)], seconds=9)
    late = batcher.submit([group(3)], seconds=0.01)
    kept = batcher.submit([group(4)], seconds=9)
    assert gone.cancel()
    time.sleep(0.1)
    scorer.gate.set()
    assert kept.result(5)[0].scores.tolist() == [4]
    with pytest.raises(DeadlineError):
        late.result(5)
    with pytest.raises(CancelledError):
        gone.result(0)
    assert scorer.calls == [1, 1]


def test_a_failure_reaches_its_clients_and_the_thread_goes_on(slow):
    scorer, batcher = slow
    scorer.gate.set()
    with pytest.raises(RuntimeError, match="boom"):
        batcher.submit([Group("p", ("boom",))], seconds=9).result(5)
    assert batcher.submit([group(2)], seconds=9).result(5)[0].scores.tolist() == [2]
    assert batcher.alive


def test_draining_finishes_what_there_is_and_takes_no_more(slow):
    scorer, batcher = slow
    waiting = [batcher.submit([group(i)], seconds=9) for i in range(1, 5)]
    threading.Timer(0.2, scorer.gate.set).start()
    assert batcher.drain(5)
    assert [f.result(0)[0].scores.tolist() for f in waiting] == [[1], [2], [3], [4]]
    with pytest.raises(DrainingError):
        batcher.submit([group(1)], seconds=9)
    assert not batcher.alive


def test_a_second_lane_starts_beside_the_first_when_enough_waits():
    scorer = Slow()
    batcher = Batcher(scorer, lanes=2)
    passes = []
    score, scorer.score = scorer.score, lambda groups, **options: passes.append(len(groups)) or score(groups, **options)
    try:
        batcher.submit([group(1)], seconds=9)
        time.sleep(0.1)
        few = [batcher.submit([group(2)], seconds=9) for _ in range(MIN_PARALLEL_ITEMS - 1)]
        time.sleep(0.1)
        assert passes == [1]
        last = batcher.submit([group(3)], seconds=9)
        time.sleep(0.1)
        assert passes == [1, MIN_PARALLEL_ITEMS]
        scorer.gate.set()
        assert last.result(5)[0].scores.tolist() == [3]
        assert [f.result(5)[0].scores.tolist() for f in few] == [[2]] * (MIN_PARALLEL_ITEMS - 1)
    finally:
        scorer.gate.set()
        assert batcher.drain(5)


def test_few_that_wait_for_a_busy_lane_are_not_forgotten_when_it_drains():
    scorer = Slow()
    batcher = Batcher(scorer, lanes=2)
    waiting = [batcher.submit([group(1)], seconds=9)]
    time.sleep(0.1)
    waiting += [batcher.submit([group(2)], seconds=9) for _ in range(2)]
    threading.Timer(0.2, scorer.gate.set).start()
    assert batcher.drain(5)
    assert [f.result(0)[0].scores.tolist() for f in waiting] == [[1], [2], [2]]


def test_two_lanes_of_one_model_give_everyone_their_own(pointwise):
    scorer = OnnxScorer(pointwise, threads=2)
    groups = [
        Group(f"prompt {i % 5}", tuple(f"answer {j} " * (j + i % 7 + 1) for j in range(1 + i % 3))) for i in range(150)
    ]
    expected = scorer.score(groups)
    batcher = Batcher(scorer, lanes=2)
    futures = [batcher.submit([group], seconds=30) for group in groups]
    for future, want in zip(futures, expected, strict=True):
        (got,) = future.result(30)
        np.testing.assert_allclose(got.scores, want.scores, atol=1e-5)
    assert batcher.drain(5)
