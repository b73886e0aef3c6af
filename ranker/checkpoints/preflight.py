"""What loading a checkpoint says before a weight is read, and how its rows look; needs torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from ranker.checkpoints.adapters import is_adapter
from ranker.checkpoints.native import plan_of
from ranker.checkpoints.report import CheckpointReport, Problem
from ranker.errors import RankerError
from ranker.layouts import Layout
from ranker.layouts.conversation import Conversation
from ranker.records import Group
from ranker.scoring.pipeline import TextPipeline
from ranker.text.tokenizer import TextTokenizer

EXAMPLE: Final = Group("What is 2 + 2?", ("4", "5"))


def preflight(
    report: CheckpointReport, folder: Path, *, head_prefix: str | None = None, allow_pickle: bool = False
) -> CheckpointReport:
    """The report with what loading says before it reads a weight: its objections, and how a row looks.

    Args:
        report: what ``inspect`` says of the folder.
        folder: the checkpoint; of an adapter, whose base is read whole to load it, the report stays as it is.
        head_prefix: as in ``native.load``.
        allow_pickle: as in ``native.load``.
    """
    fatal = any(problem.fatal for problem in report.problems)
    if fatal or not report.readable or is_adapter(folder):
        return report
    try:
        plan = plan_of(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
    except RankerError as error:
        what = str(error).removeprefix(f"{folder}: ")
        refusal = Problem(f"loading refuses it: {what}", "see above, or load another checkpoint", fatal=True)
        return replace(report, problems=(*report.problems, refusal))
    notes = tuple(Problem(note, "none, if it was meant so", serious=False) for note in plan.spec.notes)
    date = plan.layout.chat.now if isinstance(plan.layout, Conversation) else None
    return replace(
        report,
        example=example_of(plan.layout, plan.tokenizer),
        date=None if date is None else f"{date:%Y-%m-%d}",
        problems=(*report.problems, *notes),
    )


def example_of(layout: Layout, tokenizer: TextTokenizer) -> str:
    """The first row of a question and its answers, special tokens included, or why there is none."""
    pipeline = TextPipeline(layout, tokenizer)
    packed = pipeline.pack(pipeline.tokenize([EXAMPLE])[0])
    return tokenizer.decode(packed.rows[0].ids) if packed.rows else next(iter(packed.refused.values()), "")
