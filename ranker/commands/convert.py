"""``ranker convert``: a reward model of another trainer as a folder that we and plain transformers load alike."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ranker.extras import require


def run(source: str, target: str) -> None:
    """Convert and say what was written.

    Raises:
        CheckpointError: the source is not read, or the target holds files.
    """
    require("transformers").utils.logging.disable_progress_bar()
    native = require("ranker.checkpoints.native")
    native.convert(Path(source), Path(target))
    Console().print(f"{target}: written; check it with: ranker inspect {target}")
