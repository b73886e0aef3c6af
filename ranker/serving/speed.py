"""How fast a model reads, measured on its batches: what the length of a queue means in seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import exp
from typing import Final

from ranker.records import Group
from ranker.scoring.protocol import ScorerInfo

MEMORY_S: Final = 3.0
"""Seconds of computation after which an old measurement counts for a third."""

WARM_UP: Final = 2
"""Batches that are not measured: the first ones prepare kernels and memory."""

CHARACTERS_PER_TOKEN: Final = 4
"""Of English; decides only where a long text counts as cut."""

STRUCTURE: Final = 4
"""Tokens of a row besides its texts."""


def characters_read(group: Group, info: ScorerInfo) -> int:
    """Characters of all rows that the model reads for a group, those of a row at most its ``max_length`` in tokens.

    Example:
        >>> characters_read(Group("Say hi", ("Hi!", "No.")), ranker.load("model.onnx").info)
        50
    """
    most = CHARACTERS_PER_TOKEN * info.max_length
    row = CHARACTERS_PER_TOKEN * STRUCTURE
    prompt = len(group.prompt) if isinstance(group.prompt, str) else sum(len(turn.content) for turn in group.prompt)
    answers = [len(candidate) for candidate in group.candidates]
    if info.order_free:
        return sum(min(most, row + prompt + answer) for answer in answers)
    others = max(1, len(answers) - 1)
    mean = sum(answers) // max(1, len(answers))
    return sum(others * min(most, row + prompt + answer + mean) for answer in answers)


@dataclass(slots=True)
class Watch:
    """The seconds of a block, once it has ended."""

    seconds: float = 0.0


class Speed:
    """Characters per second of all batches together, those of the last seconds counting most."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._batches = 0
        self._mark = 0.0
        self._characters = 0.0
        self._seconds = 0.0

    @property
    def characters_per_second(self) -> float:
        """0 while nothing was measured."""
        return self._characters / self._seconds if self._seconds else 0.0

    def seconds(self, characters: int) -> float:
        """Estimated seconds that so many characters take; 0 while nothing was measured."""
        speed = self.characters_per_second
        return characters / speed if speed else 0.0

    @contextmanager
    def measured(self, characters: int) -> Iterator[Watch]:
        """Measure a block that computes so many characters; what fails is not counted."""
        watch, start = Watch(), time.monotonic()
        with self._lock:
            if not self._active:
                self._mark = start
            self._active += 1
        succeeded = False
        try:
            yield watch
            succeeded = True
        finally:
            now = time.monotonic()
            watch.seconds = now - start
            with self._lock:
                self._active -= 1
                self._batches += succeeded
                if succeeded and self._batches > WARM_UP:
                    self._add(characters, max(now - self._mark, 1e-6))
                    self._mark = now

    def _add(self, characters: int, seconds: float) -> None:
        kept = exp(-seconds / MEMORY_S)
        self._characters = self._characters * kept + characters
        self._seconds = self._seconds * kept + seconds
