"""What loading a checkpoint says before a weight is read, and how its rows look; needs torch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ranker.checkpoints.adapters import is_adapter
from ranker.checkpoints.native import plan_of
from ranker.checkpoints.report import CheckpointReport, Problem
from ranker.errors import RankerError
from ranker.layouts.conversation import Conversation
from ranker.scoring.pipeline import TextPipeline


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
        example=TextPipeline(plan.layout, plan.tokenizer).example(),
        date=None if date is None else f"{date:%Y-%m-%d}",
        problems=(*report.problems, *notes),
    )
