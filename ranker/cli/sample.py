"""``ranker sample``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def main(folder: Annotated[str, typer.Argument(help="where the three files go")] = "data") -> None:
    """Write the sample preference set; the same bytes every time."""
    from ranker.data.sample.build import write

    for path in write(Path(folder)):
        typer.echo(path)
