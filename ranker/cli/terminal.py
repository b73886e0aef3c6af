"""Tables and sentences on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ranker.api.exporting import SAMPLE_ROWS

if TYPE_CHECKING:
    from ranker.export.parity import ParityReport


def show(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print (name, value) rows."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def parity_rows(parity: ParityReport) -> list[tuple[str, str]]:
    """The rows of a parity table; differences and margins in logits.

    Accuracy is left out where the rows were not the user's: it would say nothing of the model.
    """
    accuracy = f"{parity.accuracy_source:.4f} / {parity.accuracy_exported:.4f}"
    return [
        ("measured on", parity.data),
        *((f"max difference, {name}", f"{value:.1e}") for name, value in parity.shapes.items()),
        ("Kendall tau-b", "undefined" if parity.tau_b is None else f"{parity.tau_b:.4f}"),
        ("decision flips", f"{parity.flips:.4f} (n={parity.n})"),
        ("largest flipped margin", f"{parity.largest_flipped_margin:.3f}"),
        *([] if parity.data == SAMPLE_ROWS else [("accuracy, torch / exported", accuracy)]),
    ]


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
