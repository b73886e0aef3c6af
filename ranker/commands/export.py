"""``ranker export``: a checkpoint to ``model.onnx``."""

from __future__ import annotations

from pathlib import Path
from typing import cast, get_args

from rich.console import Console

from ranker.commands.tables import SAMPLE, parity_rows, show
from ranker.config import ExportPrecision
from ranker.data.formats import parse_preference
from ranker.data.load import load_preferences
from ranker.data.sample import build
from ranker.errors import ConfigError
from ranker.extras import require
from ranker.records import Preference


def run(checkpoint: str, output: str, *, precision: str, data: str | None, allow_loss: bool) -> None:
    """Export and print the parity table.

    Raises:
        ConfigError: an unknown precision.
        ParityError: the graph does not say what the checkpoint says.
    """
    if precision not in get_args(ExportPrecision):
        raise ConfigError(f"expected --precision {' or '.join(get_args(ExportPrecision))}, got '{precision}'")
    require("onnx")
    from ranker.checkpoints import hub
    from ranker.export.write import OnLoss, export

    name = cast(ExportPrecision, precision)
    on_loss: OnLoss = "allow" if allow_loss else "refuse"
    parity = export(
        hub.local(checkpoint), {name: Path(output)}, rows=_rows(data), data=data or SAMPLE, on_loss=on_loss
    )[name]
    show(Console(), f"{output} against {checkpoint}", parity_rows(parity))


def _rows(data: str | None) -> list[Preference]:
    if data is not None:
        return load_preferences([data]).preferences
    return [parse_preference(row, row["id"]) for row in build.rows("validation")]
