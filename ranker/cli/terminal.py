"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table

SAMPLE: Final = "the built-in sample (give your own rows with --data)"
"""What an export is measured on where no rows are given."""


def show(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """Print (name, value) rows."""
    table = Table(title=title, show_header=False, title_justify="left")
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def parity_rows(parity: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows of a parity table; differences and margins in logits.

    Accuracy is left out where the rows were not the user's: it would say nothing of the model.
    """
    tau = parity["tau_b"]
    accuracy = f"{parity['accuracy_source']:.4f} / {parity['accuracy_exported']:.4f}"
    sample = parity["data"] == SAMPLE
    return [
        ("measured on", parity["data"]),
        *((f"max difference, {name}", f"{value:.1e}") for name, value in parity["shapes"].items()),
        ("Kendall tau-b", "undefined" if tau is None else f"{tau:.4f}"),
        ("decision flips", f"{parity['flips']:.4f} (n={parity['n']})"),
        ("largest flipped margin", f"{parity['largest_flipped_margin']:.3f}"),
        *([] if sample else [("accuracy, torch / exported", accuracy)]),
    ]
