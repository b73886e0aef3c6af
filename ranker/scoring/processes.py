"""One model on several devices of a machine: a process for each, which together are one ``Scorer``."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import IO, Any, Final, cast

from ranker.errors import ScoringError
from ranker.progress import computed
from ranker.records import Group
from ranker.scoring.distinct import ReadCount, add_reads, count_reads
from ranker.scoring.interruption import between_passes
from ranker.scoring.protocol import Floats, GroupScores, Scorer, ScorerInfo, failed, margins
from ranker.scoring.token_budget import fixed_tokens, tokens_now

logger = logging.getLogger(__name__)

WORKER: Final = "ranker.worker"
"""The module that a process runs."""

PIECES: Final = 4
"""Pieces of a call for each process: the last ones even out what takes longer."""

LEAST_GROUPS: Final = 64
"""Groups of a piece, at least; a process sorts them by length, which needs some."""

PATIENCE_S: Final = 5
"""How long a process may take to end before it is killed."""


class ProcessEndedError(ScoringError):
    """The process of a device is gone."""


class SeveralDevices:
    """Scores with copies of a model, each on a device and in a process of its own.

    Groups are cut into pieces, which go to the processes as they become free; results come in order. A process that
    dies loses nothing: its piece goes to another one, and fails only where that one dies of it too.

    Args:
        path: what ``ranker.load`` reads.
        devices: a name for each process, as ``ranker.load`` takes one.
        options: those of ``ranker.load``, the same for all.

    Raises:
        RankerError: a process could not load the model.
    """

    def __init__(self, path: str, devices: Sequence[str], options: Mapping[str, Any]) -> None:
        self._processes = [_Process(device) for device in devices]
        self._finalizer = weakref.finalize(self, _end, self._processes)
        self._alive = len(devices)
        try:
            for process in self._processes:
                process.send(("load", path, {**options, "device": process.device}))
            infos: list[ScorerInfo] = [process.receive() for process in self._processes]
        except BaseException:
            self.close()
            raise
        self._idle: SimpleQueue[_Process | None] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)
        self._threads = ThreadPoolExecutor(len(devices))
        passes = sum(info.parallel_passes for info in infos)
        self._info = replace(infos[0], device=",".join(devices), parallel_passes=passes)

    @property
    def info(self) -> ScorerInfo:
        """See ``Scorer.info``; ``device`` names all of them."""
        return self._info

    def score(self, groups: Sequence[Group], *, preserve_order: bool = False) -> list[GroupScores]:
        """See ``Scorer.score``.

        Raises:
            ScoringError: no process is left.
        """
        size = max(LEAST_GROUPS, -(-len(groups) // (PIECES * len(self._processes))))
        pieces = [list(groups[start : start + size]) for start in range(0, len(groups), size)]
        tokens = tokens_now() or 0
        running = [self._threads.submit(self._score, piece, preserve_order, tokens) for piece in pieces]
        results: list[GroupScores] = []
        for future in running:
            scored, reads = future.result()
            add_reads(reads)
            results += scored
            computed(len(scored))
            between_passes()
        return results

    def token_counts(self, group: Group) -> list[int]:
        """See ``Scorer.token_counts``."""
        counts: list[int] = self._ask(("token_counts", group))
        return counts

    def compare(self, pairs: Sequence[Group]) -> Floats:
        """See ``Scorer.compare``."""
        return margins(pairs, self.score(pairs))

    def close(self) -> None:
        """End the processes; they also end with this object and with the program."""
        self._finalizer()

    def _score(self, piece: list[Group], preserve_order: bool, tokens: int) -> tuple[list[GroupScores], ReadCount]:
        try:
            scored: tuple[list[GroupScores], ReadCount] = self._ask(("score", piece, preserve_order, tokens))
        except ProcessEndedError as error:
            return [failed(group, str(error)) for group in piece], ReadCount()
        return scored

    def _ask(self, question: tuple[Any, ...]) -> Any:
        """The answer of the process that is free first, or of another one where that one dies.

        Raises:
            ProcessEndedError: the other one died too.
            ScoringError: no process is left.
        """
        attempts = 2
        while True:
            attempts -= 1
            process = self._idle.get()
            if process is None:  # the last one is gone; those who wait for it are told one after the other
                self._idle.put(None)
                raise ScoringError("the processes of all devices have ended; load the model again")
            try:
                process.send(question)
                answer = process.receive()
            except ProcessEndedError as error:
                self._alive -= 1
                logger.warning("%s%s", error, "; its rows go to another device" if attempts else "")
                if not self._alive:
                    self._idle.put(None)
                if not attempts:
                    raise
            except BaseException:
                self._idle.put(process)
                raise
            else:
                self._idle.put(process)
                return answer


class _Process:
    """One process and its two pipes."""

    def __init__(self, device: str) -> None:
        self.device = device
        self._process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the process that asks
        )
        self._questions, self._answers = cast("tuple[IO[bytes], ...]", (self._process.stdin, self._process.stdout))

    def send(self, message: tuple[Any, ...]) -> None:
        """Ask; one question at a time.

        Raises:
            ProcessEndedError: nobody is there.
        """
        try:
            write(self._questions, message)
        except OSError as error:
            raise self._ended() from error

    def receive(self) -> Any:
        """The answer.

        Raises:
            ProcessEndedError: it died over it.
            Exception: what the question raised.
        """
        try:
            kind, value = pickle.load(self._answers)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            raise self._ended() from error
        if kind == "error":
            raise value
        return value

    def end(self) -> None:
        """Close its questions, which ends it."""
        for pipe in (self._questions, self._answers):
            pipe.close()
        try:
            self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ended(self) -> ProcessEndedError:
        code = self._process.wait(PATIENCE_S)
        return ProcessEndedError(f"the process of device {self.device} ended (exit code {code})")


def _end(processes: Sequence[_Process]) -> None:
    for process in processes:
        try:
            process.end()
        except OSError as error:  # it is gone already
            logger.debug("device %s: %s", process.device, error)


def write(pipe: IO[bytes], message: Any) -> None:
    """Write a message that ``pickle.load`` reads; both ends of the pipe are this program."""
    pipe.write(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
    pipe.flush()


def serve(scorer: Scorer, questions: IO[bytes], answers: IO[bytes]) -> None:
    """Answer questions about a loaded model until there are no more.

    Args:
        scorer: the model.
        questions: ("score", groups, preserve_order, tokens) or ("token_counts", group).
        answers: ("value", ...) or ("error", exception).
    """
    while True:
        try:
            name, *arguments = pickle.load(questions)
        except EOFError:
            return
        try:
            if name == "score":
                groups, preserve_order, tokens = arguments
                with count_reads() as reads, fixed_tokens(tokens):
                    results = scorer.score(groups, preserve_order=preserve_order)
                write(answers, ("value", (results, reads)))
            else:
                write(answers, ("value", scorer.token_counts(*arguments)))
        except Exception as error:  # it is raised where it was asked
            write(answers, ("error", portable(error)))


def portable(error: Exception) -> Exception:
    """An exception that another process can read: itself, or its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return ScoringError(f"{type(error).__name__}: {error}")
    return error


def pipes() -> tuple[IO[bytes], IO[bytes]]:
    """This process's questions and answers; what its libraries print goes to standard error."""
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return questions, answers
