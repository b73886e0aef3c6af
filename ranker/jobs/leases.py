"""Who does which part, where several processes or machines share a folder."""

from __future__ import annotations

import os
import socket
import time
import uuid
from pathlib import Path
from typing import Final

STALE: Final = 120.0
"""Seconds after which a part whose worker has not been heard of may be taken over."""


class Lease:
    """A file that says that a part is being done; it is kept fresh by ``beat`` and removed at the end.

    Taking over a stale one is a rename onto a name of the taker's own, which only one process can do. Two workers that
    do the same part all the same (a clock that jumped) write the same rows to the same name, one after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._beaten = 0.0

    def take(self) -> bool:
        """Whether the part is ours now."""
        try:
            self._create()
        except FileExistsError:
            return self._take_over()
        return True

    def beat(self) -> None:
        """Say that we are still at it; cheap enough to be called after every batch."""
        now = time.monotonic()
        if now - self._beaten > STALE / 10:
            self.path.touch()
            self._beaten = now

    def release(self) -> None:
        """Give the part back, done or not."""
        self.path.unlink(missing_ok=True)

    def _create(self) -> None:
        handle = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f"{socket.gethostname()} {os.getpid()}\n")
        self._beaten = time.monotonic()

    def _take_over(self) -> bool:
        try:
            age = time.time() - self.path.stat().st_mtime
        except FileNotFoundError:
            return False  # given back a moment ago; the next round finds it
        if age < STALE:
            return False
        grave = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            self.path.rename(grave)
            grave.unlink()
            self._create()
        except (FileNotFoundError, FileExistsError):
            return False  # another worker was quicker
        return True
