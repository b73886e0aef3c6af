"""The collector is paused while rows are made and passes run, and goes on after."""

import gc
import threading
import time
import weakref

import numpy as np
import pytest

from ranker import collector
from ranker.records import Group
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.scoring.executor import score_groups


def test_scoring_pauses_the_collector_and_lets_it_go_on(model):
    scorer = OnnxScorer(model)
    seen = []

    def forward(arrays):
        seen.append(gc.isenabled())
        return np.zeros((len(arrays["input_ids"]), 2, 1), np.float32)

    score_groups(scorer.pipeline, [Group("What?", ("a", "b"))], forward, 512)
    assert seen == [False]
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        with collector.paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_blocks_that_overlap_in_two_threads_end_with_the_last():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with collector.paused():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with collector.paused():
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join(10)
    assert gc.isenabled()


class Cycle:
    def __init__(self):
        self.me = self


def test_cycles_of_any_age_are_freed_in_a_long_pause(monkeypatch):
    with collector.paused():
        old = weakref.ref(Cycle())
        gc.collect(0)  # it is gone, as a young one
        assert old() is None
        kept = Cycle()
        old = weakref.ref(kept)
        gc.collect(1)
        del kept
        collector.collect()
        assert old() is not None
        monkeypatch.setattr(collector, "_last_full", time.monotonic() - 2 * collector.FULL_SECONDS)
        collector.collect()
        assert old() is None


def test_an_error_ends_the_pause():
    with pytest.raises(ZeroDivisionError), collector.paused():
        raise ZeroDivisionError
    assert gc.isenabled()
