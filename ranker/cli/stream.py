"""What the commands share that score the rows of a file or stream: the bar, and one line at the end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.jobs.stream import Operation


def run(operation: Operation, model: str, source: str, target: str, *, quiet: bool, **options: Any) -> None:
    """Score a file and say how many rows were written and how many have an error."""
    from rich.console import Console
    from tqdm import tqdm

    from ranker.api.files import score_file
    from ranker.scoring.distinct import ReadCount

    bar = tqdm(desc=operation, unit=" rows", file=sys.stderr, disable=quiet or not sys.stderr.isatty())
    with bar:
        result = score_file(model, source, target, operation=operation, progress=bar.update, **options)
    if not quiet or result.errors:
        first = f"; the first: {result.first_error}" if result.errors else ""
        count = ReadCount(result.answers, result.answers_read)
        once = f"; {count}" if count.saved else ""
        Console(stderr=True, soft_wrap=True).print(
            f"ranker: {result.rows} rows, {result.errors} with an error{first}{once}", highlight=False, markup=False
        )
