"""Long work says how far it is."""

import pytest

from ranker import progress
from ranker.errors import ConfigError
from ranker.signals import Stopped


@pytest.fixture
def lines(monkeypatch, capsys):
    monkeypatch.setenv(progress.EVERY_S_OF, "0")
    return lambda: capsys.readouterr().err.splitlines()


def test_nothing_is_shown_unless_it_is_asked_for(lines):
    with progress.stage("scoring", 10) as stage:
        stage.advance(10)
    assert stage.done == 10
    assert lines() == []


def test_a_line_is_printed_where_progress_is_shown_and_logged_elsewhere(lines, caplog):
    caplog.set_level("INFO")
    progress.say("nobody looks")
    assert lines() == []
    assert caplog.messages == ["nobody looks"]
    with progress.shown():
        progress.say("2 steps at a learning rate of 0.0002")
    assert lines() == ["ranker: 2 steps at a learning rate of 0.0002"]


def test_lines_name_the_work_what_is_done_and_the_figures(lines):
    with progress.shown(), progress.stage("train", 4, done=1, unit="steps") as stage:
        stage.advance()
        stage.note(loss="0.61")
        stage.advance(2)
    assert lines() == ["ranker: train: 2 of 4 steps", "ranker: train: 4 of 4 steps, loss 0.61"]


def test_an_interrupted_stage_has_no_last_line(lines, monkeypatch):
    monkeypatch.setenv(progress.EVERY_S_OF, "100")

    def interrupted():
        with progress.shown(), progress.stage("scoring", 4) as stage:
            stage.advance()
            monkeypatch.setattr(progress.time, "monotonic", lambda: 1e9)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert lines() == []


def test_what_is_computed_moves_a_span_and_never_beyond_it():
    with progress.stage("scoring", 10) as stage:
        progress.computed(3)
        assert stage.done == 0, "no span is open"
        with stage.span(4):
            progress.computed(3)
            assert stage.done == 3
            progress.computed(3)
            assert stage.done == 4
        with stage.span(6):
            pass
        assert stage.done == 10


def test_the_time_that_is_left_is_that_of_the_rows_of_this_run(lines, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.shown(), progress.stage("scoring", 300, done=200) as stage:
        for clock[0] in (10.0, 20.0):
            stage.advance(50)
    assert lines() == [
        "ranker: scoring: 250 of 300 rows, 5 rows/s, 10 s left",
        "ranker: scoring: 300 of 300 rows, 5 rows/s, 20 s",
    ]


def test_a_signal_that_was_swallowed_ends_the_work_at_the_next_stage(monkeypatch):
    monkeypatch.setattr(progress, "received", lambda: 15)
    with pytest.raises(Stopped, match="SIGTERM"), progress.stage("scoring", 2):
        pass


class Odd:
    """A standard error that calls itself a terminal and has no file."""

    def isatty(self):
        return True

    def fileno(self):
        raise ValueError("no file")

    def write(self, text):
        raise OSError("gone")


@pytest.mark.parametrize("stderr", [Odd(), None])
def test_no_standard_error_ends_the_work(stderr, monkeypatch):
    monkeypatch.setenv(progress.EVERY_S_OF, "0")
    monkeypatch.setattr("sys.stderr", stderr)
    with progress.shown(), progress.stage("scoring", 2) as stage:
        stage.advance(2)
    assert stage.done == 2


def test_seconds_that_are_no_number_are_refused(monkeypatch):
    monkeypatch.setenv(progress.EVERY_S_OF, "1m")
    with pytest.raises(ConfigError, match="expected seconds, for example 30, got '1m'"), progress.shown():
        progress.stage("scoring", 2).__enter__()


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (100, "2 min"), (5399, "1 h 30 min")])
def test_times_are_for_people(seconds, text):
    assert progress.duration(seconds) == text
