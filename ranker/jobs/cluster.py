"""A job's parts spread over a Ray cluster: Ray Data's pool of actors, the same folder, the same parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from ranker.errors import JobError, RankerError
from ranker.extras import require
from ranker.jobs.job import Job, JobStatus, Progress, Work
from ranker.progress import current

LOOK: Final = 1.0
"""Seconds between two checks of a part that another worker does."""


def spread(workers: int, *, address: str | None = None, cpus: int = 1, gpus: int = 0) -> Work:
    """A ``work`` for ``ranker.jobs.job.score`` that does a job's parts on Ray.

    When a worker dies, another one does its part again; a part is a complete file or absent, so a restarted job does
    only the missing parts. On several machines the folder, the input and the model must have the same path everywhere.

    Args:
        workers: most actors at once.
        address: of a running cluster; default: a cluster on this machine for the time of the job.
        cpus: processors of each actor.
        gpus: GPUs of each actor.

    Raises:
        MissingExtraError: Ray is not installed.
        JobError: from the work, when there is no cluster at the address or a worker failed; a ``RankerError`` of a
            worker is raised unchanged.
    """
    ray: Any = require("ray")
    data: Any = require("ray.data")

    def work(job: Job, progress: Progress) -> JobStatus:
        numbers = [part.number for part in job.pending()]
        if not numbers:
            return JobStatus()
        started = not ray.is_initialized()
        if started:
            local = {} if address else {"num_cpus": workers * cpus, "include_dashboard": False}
            try:
                ray.init(address=address or "local", log_to_driver=False, **local)
            except (ConnectionError, ValueError) as error:
                raise JobError(f"--address {address}: found no Ray cluster there ({error})") from error
        try:
            data.DataContext.get_current().enable_progress_bars = False
            rows = data.from_items([{"part": number} for number in numbers], override_num_blocks=len(numbers))
            pool = data.ActorPoolStrategy(min_size=1, max_size=workers)
            results = rows.map_batches(
                _Worker, fn_constructor_args=(job,), batch_size=1, compute=pool, num_cpus=cpus, num_gpus=gpus or None
            )
            status = JobStatus()
            for row in results.iter_rows():
                worker_status = JobStatus(row["parts"], row["read"], row["written"], row["errors"])
                progress(worker_status.read)
                current().advance(worker_status.read)
                status += worker_status
            return status
        except ray.exceptions.RayError as error:
            cause = next((cause for cause in _causes(error) if isinstance(cause, RankerError)), None)
            raise (cause or JobError(f"a worker failed: {str(error).strip().splitlines()[-1]}")) from error
        finally:
            if started:
                ray.shutdown()

    return work


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = getattr(error, "cause", None) or error.__cause__


class _Worker:
    """An actor; it loads the model with its first part."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.parts = {part.number: part for part in job.plan.parts()}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Do one part, or wait until another worker has done it."""
        part = self.parts[int(batch["part"][0])]
        status = JobStatus()
        while not self.job.has(part):
            status = self.job.do(part, lambda rows: None) or status
            if not self.job.has(part):
                time.sleep(LOOK)
        return {name: [count] for name, count in asdict(status).items()}
