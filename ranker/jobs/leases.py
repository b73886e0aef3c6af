"""Who does which part, where several processes or machines share a folder."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from pathlib import Path
from typing import Final

STALE: Final = 120.0
"""Seconds after which a part whose worker, on another machine, has not been heard of may be taken over."""


class Lease:
    """A file that says that a part is being done; a thread keeps it fresh until it is given back.

    A lease of another worker on this machine is stale when that process has ended, one of another machine when it was
    not touched for ``STALE`` seconds. Taking over is a rename of just that lease; whoever finds that he moved another
    one puts it back. Two workers that do the same part all the same (a machine that was thought dead) write the same
    rows to the same name, one after the other.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._text = f"{_owner(os.getpid())} {uuid.uuid4().hex}\n"
        self._done = threading.Event()

    def take(self) -> bool:
        """Whether the part is ours now."""
        if not self._create() and not self._take_over():
            return False
        threading.Thread(target=self._beat, name="ranker-lease", daemon=True).start()
        return True

    def release(self) -> None:
        """Give the part back, done or not."""
        self._done.set()
        if _read(self.path) == self._text:
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._done.wait(STALE / 8):
            if _read(self.path) != self._text:
                return
            os.utime(self.path)

    def _create(self) -> bool:
        draft = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        draft.write_text(self._text, encoding="utf-8")
        try:
            os.link(draft, self.path)  # the whole text at once, and never over another's
        except FileExistsError:
            return False
        finally:
            draft.unlink()
        return True

    def _take_over(self) -> bool:
        judged = _read(self.path)
        if judged is None or not self._stale(judged):
            return False
        grave = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}")
        try:
            self.path.rename(grave)
        except FileNotFoundError:
            return False  # another worker was quicker
        if _read(grave) != judged:
            if not self.path.exists():
                grave.rename(self.path)
            return False
        grave.unlink()
        return self._create()

    def _stale(self, owner: str) -> bool:
        alive = _alive(owner)
        if alive is not None:
            return not alive
        try:
            return time.time() - self.path.stat().st_mtime >= STALE
        except FileNotFoundError:
            return False


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _owner(process: int) -> str:
    """A process that no other one will be taken for: its machine, its number and, on Linux, when it began."""
    return f"{_machine()} {process} {_began(process)}"


def _machine() -> str:
    """Where process numbers mean the same: the machine since its last start, and on Linux the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


def _began(process: int) -> str:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return "-"
    return fields[19]  # clock ticks after the machine's start


def _alive(lease: str) -> bool | None:
    """Whether the owner of a lease is a running process; None where that cannot be seen from here."""
    machine, _, rest = lease.partition(" ")
    process = rest.partition(" ")[0]
    if machine != _machine() or not process.isdecimal() or not Path("/proc/self").exists():
        return None
    return lease.startswith(_owner(int(process)) + " ")
