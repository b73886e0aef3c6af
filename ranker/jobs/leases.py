"""Leases on the parts of a job, for several processes or machines that share a folder."""

from __future__ import annotations

import atexit
import os
import threading
import time
import uuid
from pathlib import Path
from typing import Final

from ranker.atomic import beside, create_text, discard, machine

REPLACING: Final = ".selection.lease"
"""The lease of a command that replaces the selection in a folder."""

_held: set[Lease] = set()
"""Leases of this process, and of the one that it was forked from."""

STALE: Final = 120.0
"""Seconds without a touch after which the lease of a worker on another machine may be taken over."""


class Lease:
    """A file that marks a part as in progress; a thread touches it until it is released.

    A lease of another worker on this machine is stale when that process has ended; a lease of another machine when it
    was not touched for ``STALE`` seconds. A worker takes over by renaming the stale lease; if it finds that it renamed
    a newer lease, it renames that one back. If two workers do the same part anyway (a machine that seemed dead), they
    write the same rows to the same name, one after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._process = os.getpid()
        self._text = f"{_owner(self._process)} {uuid.uuid4().hex}\n"
        self._done = threading.Event()

    def take(self) -> bool:
        """Take the lease; whether this worker has it now.

        It is released at the end of the process at the latest, also where a signal arrives before this returns.
        """
        _held.add(self)
        if not self._create() and not self._take_over():
            _held.discard(self)
            return False
        threading.Thread(target=self._beat, name="ranker-lease", daemon=True).start()
        return True

    def release(self) -> None:
        """Release the lease, whether the part is done or not."""
        self._done.set()
        if _read(self.path) == self._text:
            self.path.unlink(missing_ok=True)
        _held.discard(self)

    def _beat(self) -> None:
        while not self._done.wait(STALE / 8):
            if _read(self.path) != self._text:
                return
            os.utime(self.path)

    def _create(self) -> bool:
        return create_text(self.path, self._text)

    def _take_over(self) -> bool:
        stale_text = _read(self.path)
        if stale_text is None or not self._stale(stale_text):
            return False
        moved = beside(self.path)
        try:
            self.path.rename(moved)
            if _read(moved) != stale_text:
                if not self.path.exists():
                    moved.rename(self.path)
                return False
        except FileNotFoundError:
            return False  # another worker was quicker
        finally:
            discard(moved)
        return self._create()

    def _stale(self, owner: str) -> bool:
        alive = _alive(owner)
        if alive is not None:
            return not alive
        try:
            return time.time() - self.path.stat().st_mtime >= STALE
        except FileNotFoundError:
            return False


@atexit.register
def _release_all() -> None:
    """Release what a signal left: it may arrive before ``take`` returns, or within ``release``."""
    for lease in list(_held):
        if lease._process == os.getpid():
            lease.release()


def held(path: Path) -> bool:
    """Whether a worker that lives has the lease."""
    lease = Lease(path)
    text = _read(path)
    return text is not None and not lease._stale(text)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return None


def _owner(process: int) -> str:
    """A unique name of a process: its machine, its number and, on Linux, its start time."""
    return f"{machine()} {process} {_start_time(process)}"


def _start_time(process: int) -> str:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "-"
    return fields[19]  # clock ticks after the machine's start


def _alive(lease: str) -> bool | None:
    """Whether the owner of a lease is a running process; None for a process that is not visible from here."""
    where, _, rest = lease.partition(" ")
    process = rest.partition(" ")[0]
    if where != machine() or not process.isdecimal() or not Path("/proc/self").exists():
        return None
    return lease.startswith(_owner(int(process)) + " ")
