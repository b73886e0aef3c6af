"""What the commands share that score the rows of a file or stream: the bar, and one line at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ranker.jobs.stream import Operation


def run(operation: Operation, model: str, source: str, target: str, *, quiet: bool, **options: Any) -> None:
    """Score a file and say how many rows were written and how many have an error."""
    from rich.console import Console

    from ranker.api.files import score_file
    from ranker.data.sources import Source
    from ranker.progress import shown, stage
    from ranker.scoring.distinct import ReadCount

    count = Source.parse(source).count() if not quiet else None
    with shown(not quiet), stage(operation, count):
        result = score_file(model, source, target, operation=operation, **options)
    if not quiet or result.errors:
        first = f"; the first: {result.first_error}" if result.errors else ""
        reads = ReadCount(result.answers, result.answers_read)
        once = f"; {reads}" if reads.saved else ""
        Console(stderr=True, soft_wrap=True).print(
            f"ranker: {result.rows} rows, {result.errors} with an error{first}{once}", highlight=False, markup=False
        )
