"""Whether the files of a job are still what was written: every part, and the input."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ranker.errors import JobError
from ranker.jobs import parts
from ranker.jobs.plan import PLAN, SCORED, InputFile, Part, Plan, digest_of, read, stamp
from ranker.progress import counted, stage


def check_parts(folder: Path, done: Iterable[Part]) -> None:
    """Refuse parts whose files are not those that were written.

    Args:
        folder: the folder of the parts.
        done: the parts that have a file.

    Raises:
        JobError: naming the file, and what to do.
    """
    noted = {part["part"]: part for part in parts.facts(folder)}
    listed = list(done)
    with stage("checking the parts that are there", len(listed), unit="parts"):
        for part in counted(listed):
            _check_part(folder, part, noted.get(part.number))


def _check_part(folder: Path, part: Part, facts: dict[str, Any] | None) -> None:
    path = parts.path_of(folder, part)
    repair = "delete it, and the same ranker filter command writes it again"
    if facts is None:
        raise JobError(f"{path}: has no record in {folder / parts.FACTS}; {repair}")
    errors = facts.get("errors_sha256")
    if _hash(path) != facts["sha256"]:
        raise JobError(f"{path}: was changed since it was written (its SHA-256 differs); {repair}")
    if errors is not None and _hash(parts.errors_path(folder, part)) != errors:
        raise JobError(
            f"{parts.errors_path(folder, part)}: was changed since it was written (its SHA-256 differs); delete "
            f"{path.name} beside it, and the same ranker filter command writes both again"
        )


def check_input(sources: Iterable[InputFile]) -> None:
    """Refuse input that was changed while the job ran; files in object stores are not read again.

    Raises:
        JobError: naming the file.
    """
    for source in sources:
        if (
            source.modified
            and stamp(source.path) != (source.bytes, source.modified)
            and _hash(Path(source.path)) != source.sha256
        ):
            raise JobError(
                f"{source.path}: was changed while the job ran, so its parts may come from two versions; put the old "
                "file back and start again, or choose a new folder"
            )


@dataclass(frozen=True, slots=True)
class JobParts:
    """The parts of a job, of which ``there`` are done and as they were written."""

    there: int
    total: int

    @property
    def is_whole(self) -> bool:
        """Whether none is missing."""
        return self.there == self.total


def check_job(folder: Path) -> JobParts:
    """Check all files of a job that is finished or stopped, and of the scores beside a selection.

    Returns:
        The parts that are there, and all parts of the job.

    Raises:
        JobError: a folder without a job, or a file that was changed or is missing.
    """
    plan = read(folder)
    if plan is None and read(folder / SCORED) is None:
        raise JobError(f"{folder}: expected a folder that ranker filter wrote, found no {PLAN} in it")
    there = total = 0
    for place, job in ((folder / SCORED, read(folder / SCORED)), (folder, plan)):
        if job is not None:
            listed = list(job.parts())
            done = [part for part in listed if parts.path_of(place, part).exists()]
            check_parts(place, done)
            _check_end(place, listed, done)
            there, total = there + len(done), total + len(listed)
    return JobParts(there, total)


def _check_end(folder: Path, listed: list[Part], done: list[Part]) -> None:
    missing = [part for part in listed if part not in done]
    if missing and (folder / parts.SUCCESS).exists():
        raise JobError(
            f"{parts.path_of(folder, missing[0])}: is missing, though {parts.SUCCESS} says that the job is finished; "
            "the same ranker filter command writes it again"
        )


def is_whole(folder: Path, plan: Plan) -> bool:
    """Whether a job is finished and all its parts are there."""
    return (folder / parts.SUCCESS).exists() and all(parts.path_of(folder, part).exists() for part in plan.parts())


def _hash(path: Path) -> str:
    """SHA-256 of a file; empty if it cannot be read."""
    try:
        return digest_of(path)
    except OSError:
        return ""
