"""Command lines that are sent signals: they run as processes of their own, and are waited for by what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass

from tests.conftest import ROOT


@dataclass
class Ended:
    """How a process ended."""

    returncode: int
    stderr: str


def ranker_until(pattern: str, signals: list[int], *arguments: object) -> Ended:
    """Run ``ranker`` with ``arguments`` until its standard error matches ``pattern``, then send it ``signals`` at once."""
    return until(pattern, signals, [sys.executable, "-m", "ranker", *map(str, arguments)])


def until(pattern: str, signals: list[int], command: list[str], env: dict[str, str] | None = None) -> Ended:
    """The same for any command."""
    env = (os.environ if env is None else env) | {
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "RANKER_PROGRESS_SECONDS": "0",  # a line for every movement
    }
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    seen = b""
    while not re.search(pattern.encode(), seen):
        more = os.read(process.stderr.fileno(), 4096)
        if not more:
            raise AssertionError(f"ended before it printed {pattern!r}: {seen.decode()[-3000:]}")
        seen += more
    for number in signals:
        process.send_signal(number)
    rest = process.communicate(timeout=120)[1]
    return Ended(process.returncode, (seen + rest).decode())
