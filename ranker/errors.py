"""The error tree. Every message says what was expected, what came, and what to do.

RankerError                 anything this package refuses; ``exit_code`` is what the command line returns
|-- ConfigError             an unknown key, a value of the wrong type, options that exclude each other     (2)
|-- MissingExtraError       an optional dependency is not installed (also an ImportError)                  (2)
|-- DataError               a row that cannot be used: file, line, field and reason                        (3)
|-- CheckpointError         a checkpoint that is incomplete or says something else than its weights        (4)
|-- ModelFileError          a model.onnx that is damaged, foreign or from a newer version                  (4)
|-- ParityError             an export whose scores differ from the source model beyond the stated limit    (4)
|-- JobError                a folder that holds another job than the one that was asked for                 (5)
|   `-- LeasedError         a job of which other workers do all the parts that are left                      (6)
|-- RegressionError         a model that is significantly worse than the one it was compared with            (5)
|-- ScoringError            a model that gave NaN or infinity                                              (1)
|-- OutputError             a file or folder that cannot be written: no rights, disk full                  (1)
`-- ExportError             a model that could not be turned into a graph                                  (1)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final


class RankerError(Exception):
    """Base of everything raised on purpose by this package."""

    exit_code = 1


class ConfigError(RankerError):
    """A configuration that cannot be used as written."""

    exit_code = 2


class MissingExtraError(RankerError, ImportError):
    """A feature was asked for whose optional dependency is not installed."""

    exit_code = 2


NOT_FIELDS: Final = ("columns", "error", "file", "line", "row", "rows")
"""What a ``DataError`` may be about besides a field of the rows."""


class DataError(RankerError):
    """A row that cannot be used.

    ``where`` is ``file:line``, ``field`` the column at fault or ``columns``, ``file``, ``line``, ``row``, ``rows`` or
    ``error``, ``reason`` the expectation that failed, ``raw`` the line itself where it could not be read as a row.
    """

    exit_code = 3

    def __init__(self, where: str, field: str, reason: str, raw: str = "") -> None:
        label = field if field in NOT_FIELDS else f"field '{field}'"
        super().__init__(f"{where}: {label}: {reason}".replace("\n", "\\n").replace("\r", "\\r"))
        self.where, self.field, self.reason, self.raw = where, field, reason, raw

    def __reduce__(self) -> tuple[type[DataError], tuple[str, str, str, str]]:
        return type(self), (self.where, self.field, self.reason, self.raw)


class CheckpointError(RankerError):
    """A checkpoint that is incomplete, damaged or inconsistent."""

    exit_code = 4


class ModelFileError(RankerError):
    """A ``model.onnx`` that cannot be trusted or read."""

    exit_code = 4


class ParityError(RankerError):
    """An exported graph that does not say what its source model says."""

    exit_code = 4


class JobError(RankerError):
    """A folder that holds another job than the one that was asked for."""

    exit_code = 5


class LeasedError(JobError):
    """A job of which other workers do all the parts that are left."""

    exit_code = 6


class RegressionError(RankerError):
    """A model that is significantly worse than the baseline it was compared with."""

    exit_code = 5


class InterruptedRunError(KeyboardInterrupt):
    """Work that Ctrl-C or SIGTERM stopped. The message says what is kept and how to continue.

    A ``KeyboardInterrupt``, so that no ``except Exception`` takes it for a failure. ``exit_code`` is what shells
    expect: 128 and the signal's number.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
        self.exit_code = 128 + signal_number

    def __reduce__(self) -> tuple[type[InterruptedRunError], tuple[str, int]]:
        return type(self), (str(self), self.signal_number)


class ScoringError(RankerError):
    """A forward pass whose result is not a finite number."""


class ServerError(RankerError):
    """A server that refused a request or did not answer; ``status`` is that of HTTP, 0 without an answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[ServerError], tuple[int, str]]:
        return type(self), (self.status, str(self))


class OutputError(RankerError, OSError):
    """A file or folder that the operating system does not let this process write."""


class ExportError(RankerError):
    """A model that could not be turned into an ONNX graph."""


def one_line(error: BaseException) -> str:
    """What a foreign library says, in a line of at most 200 characters; its class where it says nothing."""
    return f"{' '.join(str(error).split()) or type(error).__name__:.200}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest known name, or the full list when nothing is close."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(options)}"
