"""``ranker sample``: the sample preference set."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ranker.data.sample.build import write


def run(folder: str) -> None:
    """Write the three files and name them."""
    for path in write(Path(folder)):
        Console().print(path)
