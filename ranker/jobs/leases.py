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

    It is stale when it has not been beaten for ``STALE`` seconds, or when its worker was on this machine and is dead.
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
            file.write(_owner(os.getpid()))
        self._beaten = time.monotonic()

    def _take_over(self) -> bool:
        try:
            age = time.time() - self.path.stat().st_mtime
            owner = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return False  # given back a moment ago; the next round finds it
        if age < STALE and not _dead(owner):
            return False
        grave = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            self.path.rename(grave)
            grave.unlink()
            self._create()
        except (FileNotFoundError, FileExistsError):
            return False  # another worker was quicker
        return True


def _owner(process: int) -> str:
    """A process that no other one will be taken for: its machine, its number and, on Linux, when it began."""
    return f"{_machine()} {process} {_began(process)}\n"


def _machine() -> str:
    """Where process numbers mean the same: the machine, and on Linux the container."""
    try:
        return f"{socket.gethostname()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _began(process: int) -> str:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "-"
    return fields[19]  # clock ticks after the machine's start


def _dead(owner: str) -> bool:
    """Whether the owner of a lease was a process of this machine that has ended."""
    machine, _, rest = owner.partition(" ")
    process = rest.partition(" ")[0]
    if machine != _machine() or not process.isdecimal() or not Path("/proc/self").exists():
        return False
    return _owner(int(process)) != owner
