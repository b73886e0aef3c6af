"""Everyone gets what they asked for, in whatever company, or is told why not."""

import ctypes
import itertools
import threading
import time
from concurrent.futures import CancelledError

import numpy as np
import pytest

from ranker.records import Group
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.scoring.interruption import between_passes
from ranker.scoring.protocol import GroupScores
from ranker.serving.batcher import (
    BATCH_ITEMS,
    LONG_LANES,
    MIN_PARALLEL_ITEMS,
    Batcher,
    DeadlineError,
    DrainingError,
    LaneError,
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


def test_batches_are_bounded_and_take_groups_of_all_requests_in_turn(slow):
    scorer, batcher = slow
    batcher.submit([group(1)], seconds=9)
    time.sleep(0.1)
    futures = [batcher.submit([group(2)] * 100, seconds=9) for _ in range(4)]
    large = batcher.submit([group(3)] * 500, seconds=9)
    scorer.gate.set()
    done = []
    for name, future in [("large", large), *((n, future) for n, future in enumerate(futures))]:
        future.add_done_callback(lambda future, name=name: done.append(name))
    assert len(large.result(5)) == 500
    assert all(len(f.result(5)) == 100 for f in futures)
    assert max(scorer.calls) <= BATCH_ITEMS
    assert done[-1] == "large"


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


class Passes:
    """A model of passes that each take 10 ms; one whose answer is "panic" ends the thread that computes it."""

    info = info_of()

    def __init__(self):
        self.passes = []
        self.started = threading.Event()

    def score(self, groups, *, preserve_order=False):
        for group in groups:
            for _ in range(max(1, int(group.prompt or 1))):
                self.started.set()
                time.sleep(0.01)
                self.passes.append(group.candidates[0])
                between_passes()
            if group.candidates[0] == "panic":
                raise SystemExit("panic")
        return [GroupScores(np.zeros(len(g.candidates), np.float32), np.zeros(len(g.candidates), bool)) for g in groups]


@pytest.fixture
def passes():
    scorer = Passes()
    batcher = Batcher(scorer)
    yield scorer, batcher
    batcher.drain(5)


def heavy(name, passes=1000):
    """A group that is longer than a batch."""
    return Group(str(passes), (name, *(["x" * 1000] * 40)))


def test_a_long_group_lets_small_ones_go_between_its_passes(passes):
    scorer, batcher = passes
    long = batcher.submit([heavy("long")], seconds=60)
    assert scorer.started.wait(5)
    for _ in range(3):
        batcher.submit([Group("1", ("small",))], seconds=5).result(2)
    assert not long.done()
    assert long.cancel()


def test_several_long_groups_take_turns(passes):
    scorer, batcher = passes
    long = [batcher.submit([heavy(f"long {n}", passes=30)], seconds=60) for n in range(3)]
    for future in long:
        future.result(10)
    changes = sum(a != b for a, b in itertools.pairwise(scorer.passes))
    assert changes > 4


def test_long_work_that_nobody_awaits_ends_between_two_passes(passes):
    scorer, batcher = passes
    gone = [batcher.submit([heavy(f"gone {n}")], seconds=60) for n in range(LONG_LANES + 2)]
    assert scorer.started.wait(5)
    for future in gone:
        assert future.cancel()
    batcher.submit([heavy("next", passes=1)], seconds=9).result(3)
    count = len(scorer.passes)
    time.sleep(0.1)
    assert len(scorer.passes) == count


def test_long_work_ends_at_its_deadline(passes):
    scorer, batcher = passes
    late = batcher.submit([heavy("late")], seconds=0.2)
    with pytest.raises(DeadlineError, match="send it again later, or a smaller one"):
        late.result(3)


def test_a_panic_fails_its_own_request_and_the_lane_goes_on(passes):
    scorer, batcher = passes
    first = batcher.submit([Group("20", ("a",))], seconds=9)
    assert scorer.started.wait(5)
    others = [batcher.submit([Group("1", (name,))], seconds=9) for name in ("b", "panic", "c")]
    with pytest.raises(LaneError, match="SystemExit: panic"):
        others[1].result(5)
    assert [len(future.result(5)) for future in (first, others[0], others[2])] == [1, 1, 1]
    assert batcher.alive


def test_a_lane_that_is_killed_goes_on_and_its_request_is_answered(passes):
    scorer, batcher = passes
    victim = batcher.submit([Group("500", ("victim",))], seconds=9)
    assert scorer.started.wait(5)
    for lane in [thread for thread in threading.enumerate() if thread.name.startswith("ranker-lane")]:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(lane.ident), ctypes.py_object(SystemExit))
    with pytest.raises(LaneError):
        victim.result(5)
    assert len(batcher.submit([Group("1", ("next",))], seconds=9).result(5)) == 1
    assert batcher.alive


def measured(queue_s):
    """A batcher whose model was measured: about 100 passes of one group in a second."""
    batcher = Batcher(Passes(), queue_s=queue_s)
    for _ in range(10):
        batcher.submit([Group("1", ("x" * 34,))], seconds=9).result(5)
    return batcher


def test_work_that_would_wait_too_long_is_refused_at_once():
    batcher = measured(queue_s=0.3)
    refusals = 0
    waits = set()
    accepted = []
    for _ in range(200):
        try:
            accepted.append(batcher.submit([Group("1", ("x" * 34,))], seconds=9))
        except OverloadedError as error:
            refusals += 1
            waits.add(error.headers["Retry-After"])
    assert refusals > 100
    assert waits == {"1"}
    assert len(accepted) > 10
    for future in accepted:
        future.result(5)
    assert batcher.drain(5)


def test_a_small_request_is_not_refused_because_a_large_one_waits():
    batcher = measured(queue_s=0.3)
    large = batcher.submit([Group("1", ("x" * 34,))] * 200, seconds=9)
    small = batcher.submit([Group("1", ("x" * 34,))], seconds=9)
    small.result(2)
    assert not large.done()
    assert large.cancel()
    assert batcher.drain(5)


def test_a_large_request_is_accepted_by_an_idle_model():
    batcher = measured(queue_s=0.01)
    assert len(batcher.submit([Group("1", ("x" * 34,))] * 100, seconds=9).result(5)) == 100
    assert batcher.drain(5)
