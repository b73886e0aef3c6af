"""``ranker verify``: whether a checkpoint is what it should be, one line per check."""

from __future__ import annotations

from rich.console import Console

from ranker.commands.tables import show
from ranker.data.load import load_preferences
from ranker.errors import CheckpointError
from ranker.extras import require


def run(path: str, *, against: str | None, data: str | None, head_prefix: str | None, allow_pickle: bool) -> None:
    """Print every check and what it saw.

    Raises:
        CheckpointError: a check failed.
        DataError: the rows cannot be read.
    """
    require("transformers").utils.logging.disable_progress_bar()
    verify = require("ranker.checkpoints.verify").verify
    local = require("ranker.checkpoints.hub").local
    rows = None if data is None else load_preferences([data]).preferences
    other = None if against is None else local(against, allow_pickle=allow_pickle)
    folder = local(path, allow_pickle=allow_pickle)
    checks = verify(folder, against=other, data=rows, head_prefix=head_prefix, allow_pickle=allow_pickle)
    show(Console(), path, [(check.name, ("" if check.passed else "FAILED: ") + check.seen) for check in checks])
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise CheckpointError(f"{path}: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
