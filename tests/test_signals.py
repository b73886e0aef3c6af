"""Signals that arrive where Python swallows what they raise."""

import signal
import sys

import pytest

from ranker import signals


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    signals.quiet_destructors()
    yield
    signals.forget()


class Dying:
    def __init__(self, error):
        self.error = error

    def __del__(self):
        raise self.error


def test_a_signal_within_a_destructor_prints_no_traceback(hook, capsys):
    Dying(signals.Stopped(signal.SIGTERM))
    assert capsys.readouterr().err == ""


def test_another_error_of_a_destructor_is_still_printed(hook, capsys):
    Dying(ValueError("boom"))
    assert "boom" in capsys.readouterr().err
