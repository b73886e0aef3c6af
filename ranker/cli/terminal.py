"""Tables and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def show(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print (name, value) rows."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def say_converted(target: str, to: str, notes: Sequence[str]) -> None:
    """Say what was written and what could not be kept."""
    console = Console(soft_wrap=True)
    if to == "triton":
        console.print(f"{target}: written; see: tritonserver --model-repository {target}", highlight=False)
        return
    for note in notes:
        console.print(f"not kept as it was: {note}", highlight=False, markup=False)
    console.print(
        f"{target}: written, read again and scored like the source; see: ranker inspect {target}", highlight=False
    )
