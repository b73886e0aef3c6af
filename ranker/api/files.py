"""Files of any size through a model: ``filter_files`` and ``score_file``."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from ranker.api.rows import RowsLike, write_rows
from ranker.batch_scorer import BatchScorer
from ranker.data.read_row import Columns
from ranker.data.sources import Source
from ranker.data.tables import is_rows, named_rows
from ranker.data.writers import check_folder, check_output
from ranker.errors import ConfigError, InterruptedRunError, JobError
from ranker.extras import require
from ranker.jobs.plan import SCORED
from ranker.jobs.select import OutputRows, Selection
from ranker.loading import load
from ranker.ranking.tournament import Choice
from ranker.runtime.devices import device_names, parse_device
from ranker.runtime.session import available_cores
from ranker.signals import number_of

if TYPE_CHECKING:
    from ranker.jobs.integrity import JobParts
    from ranker.jobs.job import JobStatus, Work
    from ranker.jobs.stream import Operation, StreamResult

Engine = Literal["local", "ray"]
MEMORY: Final = "_input.jsonl"
"""The file of rows in memory, in the folder of their job."""


def filter_files(
    inputs: str | Path | Sequence[str | Path] | RowsLike,
    model: str | Path,
    output: str | Path,
    *,
    keep: str | None = None,
    keep_top: float | None = None,
    output_rows: OutputRows = "rows",
    drop_ties: bool = False,
    columns: Columns | None = None,
    prefix: str = "ranker_",
    part_rows: int = 5000,
    engine: Engine = "local",
    workers: int | None = None,
    address: str | None = None,
    threads: int | None = None,
    wait: bool = False,
    keep_scores: bool = True,
    progress: Callable[[int], object] | None = None,
    **options: Any,
) -> JobStatus:
    """Score files of any size into a folder, and keep what is worth keeping.

    Rows keep their order and columns and gain those of ``BatchScorer``. Parts that are done are not done again: the
    same call continues a job that was stopped, and several processes or machines may share one folder. Rows that
    cannot be scored go to ``errors-*.jsonl``.

    Where rows are selected, all rows are first scored into ``output/_scored``. Another selection with the same model
    and input, or ``select_rows``, uses these scores; it replaces the rows that were selected before.

    Args:
        inputs: files, folders and patterns of files (.jsonl, .json, .csv, .tsv, .parquet, .arrow, also compressed), and
            ``NAME=FILE`` of known datasets; or rows in memory, which are written into the folder first.
        model: what ``ranker.load`` reads.
        output: a folder.
        keep: an expression over score, margin, truncated, candidates and characters: ``"margin > 1"``.
        keep_top: the best share of all rows, in (0, 1].
        output_rows: ``rows`` as they are, ``best`` with the best candidate as ``best``, or ``pairs`` of the best and
            the worst (prompt, chosen, rejected, margin).
        drop_ties: leave out rows whose best candidates have one score.
        columns: names of the columns where they differ from the known ones.
        prefix: of the columns that are added.
        part_rows: rows of a part, which is what a worker loses when it dies.
        engine: ``local``, or ``ray``: a pool of workers.
        workers: of Ray, at most; default one per processor.
        address: of a Ray cluster; default one on this machine.
        threads: processor threads of each worker.
        wait: whether the call ends only when the whole job is done, where other workers do parts of it; it takes over
            the parts of workers that die.
        keep_scores: whether the scores of all rows stay in ``output/_scored``, which needs about the input's space.
        progress: called with the number of rows after every batch.
        options: those of ``ranker.load``.

    Returns:
        What this call did: parts, rows read, rows written, rows with an error.

    Raises:
        ConfigError: an invalid expression, share or engine, or pairs of rows that have one answer each.
        JobError: the folder holds another job.
        DataError: an input is missing or damaged, or all rows failed.
        InterruptedRunError: Ctrl-C or SIGTERM; finished parts are kept.

    Example:
        >>> status = ranker.filter_files("data/*.jsonl", "model.onnx", "kept", keep_top=0.5, output_rows="pairs")
        >>> status.read, 0 < status.written < 240, status.errors
        (240, True, 0)
    """
    from ranker.jobs import job, stored

    _check_share(keep_top)
    selection = Selection(keep=keep, output_rows=output_rows, drop_ties=drop_ties)
    stored.check_selection(selection, keep_top)
    folder = Path(output)
    if ":/" not in str(folder):  # an object store is refused by the job, in its words
        check_folder(folder)
    sources = _sources(inputs, folder)
    work: Work | None = None
    if engine == "ray":
        workers = workers or max(1, available_cores() // (threads or 1))
        threads = threads or max(1, available_cores() // workers)
        if options.get("device", "auto") == "auto":
            options["device"] = "cpu"  # Ray gives GPUs to those who ask for them
        if len(device_names(options["device"])) > 1:
            raise ConfigError("engine ray gives every worker one device; name one, and the number of workers")
        model = Path(model).absolute() if Path(model).exists() else model
        folder = folder.absolute()
        gpus = int(parse_device(options["device"])[0] in ("cuda", "tensorrt"))
        work = require("ranker.jobs.cluster").spread(workers, address=address, cpus=threads, gpus=gpus)
    elif engine != "local" or workers or address:
        raise ConfigError(f"expected engine local, or ray for workers and address, got '{engine}'")
    scorer = BatchScorer(os.fspath(model), columns=columns, prefix=prefix, threads=threads, **options)
    common: dict[str, Any] = {"part_rows": part_rows, "selection": selection, "work": work, "wait": wait}
    common["progress"] = progress or (lambda rows: None)
    try:
        if keep_top is None and (selection == Selection() or not (keep_scores or (folder / SCORED).exists())):
            return job.score(scorer, sources, folder, **common)
        return stored.score_and_select(scorer, sources, folder, share=keep_top, keep_scores=keep_scores, **common)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(job.interrupted(folder), number_of(error)) from error


def select_rows(
    folder: str | Path,
    output: str | Path | None = None,
    *,
    keep: str | None = None,
    keep_top: float | None = None,
    output_rows: OutputRows = "rows",
    drop_ties: bool = False,
    wait: bool = False,
    progress: Callable[[int], object] | None = None,
) -> JobStatus:
    """Select rows anew from those that ``filter_files`` has scored; no model is needed.

    Args:
        folder: the ``output`` of ``filter_files``, or of this function.
        output: the folder of the selected rows; default ``folder``, where they replace those selected before.
        keep: as in ``filter_files``.
        keep_top: as in ``filter_files``.
        output_rows: as in ``filter_files``.
        drop_ties: as in ``filter_files``.
        wait: as in ``filter_files``.
        progress: called with the number of rows after every batch.

    Returns:
        What this call did: parts, rows read, rows written, rows with an error.

    Raises:
        ConfigError: no selection in the place of another one, an invalid expression or share, or ``output`` holds the
            scores.
        JobError: the folder holds no scores, or not all of them yet, or ``output`` holds another job.
        InterruptedRunError: Ctrl-C or SIGTERM; finished parts are kept.

    Example:
        >>> status = ranker.filter_files("data/*.jsonl", "model.onnx", "kept", keep_top=0.5)
        >>> fewer = ranker.select_rows("kept", keep_top=0.1, output_rows="best")
        >>> fewer.read, fewer.written < status.written
        (240, True)
    """
    from ranker.jobs import job, stored

    _check_share(keep_top)
    selection = Selection(keep=keep, output_rows=output_rows, drop_ties=drop_ties)
    stored.check_selection(selection, keep_top)
    target = Path(folder if output is None else output)
    scores = stored.scores_in(Path(folder))
    if output is None and keep_top is None and selection == Selection():
        raise ConfigError(
            f"{folder}: expected a selection in the place of the one that is there: --keep, --keep-top, --best-of, "
            "--pairs or --drop-ties; to get all rows, give another folder with -o"
        )
    check_folder(target)
    report = progress or (lambda rows: None)
    try:
        return stored.select_stored(scores, target, selection=selection, share=keep_top, progress=report, wait=wait)
    except KeyboardInterrupt as error:
        raise InterruptedRunError(job.interrupted(target), number_of(error)) from error


def check_job(folder: str | Path) -> JobParts:
    """Check that the files of a job are those that were written.

    Args:
        folder: the ``output`` of ``filter_files`` or ``select_rows``.

    Returns:
        The parts that are there, and all parts of the job; those of the scores beside a selection count too.

    Raises:
        JobError: no job, or a file that was changed or is missing; the message names it and what to do.

    Example:
        >>> status = ranker.filter_files("data/*.jsonl", "model.onnx", "kept", keep_top=0.5)
        >>> ranker.check_job("kept").is_whole
        True
    """
    from ranker.jobs.integrity import check_job

    return check_job(Path(folder))


def _check_share(keep_top: Any) -> None:
    if keep_top is not None and not isinstance(keep_top, float | int):
        raise ConfigError(f"keep_top: expected a share in (0, 1], for example 0.1, got {keep_top!r:.40}")


def _sources(inputs: Any, folder: Path) -> list[str]:
    """The inputs as names of files; rows in memory as a file in the job's folder."""
    if is_rows(inputs):
        return [str(_in_memory(inputs, folder / MEMORY))]
    return [str(source) for source in ([inputs] if isinstance(inputs, str | Path) else inputs)]


def _in_memory(rows: Any, file: Path) -> Path:
    """Rows in memory as the file of a job; rows of an earlier call must be the same.

    Raises:
        JobError: the folder holds a job of other rows.
    """
    if not file.exists():
        return write_rows(rows, file)
    again = write_rows(rows, file.with_name(f".{file.name}.{os.getpid()}"))
    try:
        if again.read_bytes() != file.read_bytes():
            raise JobError(f"{file.parent}: was started with other rows; give the same ones, or choose a new folder")
    finally:
        again.unlink()
    return file


def score_file(
    model: str | Path,
    source: RowsLike,
    target: str | Path,
    *,
    operation: Operation = "score",
    columns: Columns | None = None,
    schedule: Choice | None = None,
    budget: int | None = None,
    prefilter: str | Path | None = None,
    keep: int = 8,
    rendered: bool = False,
    max_error_rate: float = 1.0,
    progress: Callable[[int], object] | None = None,
    **options: Any,
) -> StreamResult:
    """Score, rank or compare the candidates of every row of a file; ``-`` is standard input or output.

    Every input column is kept. A bad row keeps its place, with null results and the reason in ``error``. A line that is
    not a JSON object is kept as text in the column ``input``; blank lines are skipped.

    Args:
        model: what ``ranker.load`` reads.
        source: a file, folder or pattern of files (.jsonl, .json, .csv, .tsv, .parquet, .arrow, also compressed), or
            ``NAME=FILE`` of a known dataset; or rows in memory.
        target: the file of the results, which appears when it is complete; ``.parquet`` is Parquet, others JSON lines.
        operation: ``score``, ``rank``, ``best-of-n``, ``rank-with-ref`` or ``compare``.
        columns: names of the columns where they differ from the known ones.
        schedule: compare candidates in pairs (``rank``, ``best-of-n``).
        budget: the most comparisons of a row.
        prefilter: a model that is asked first; the best ``keep`` candidates go on.
        keep: see ``prefilter``.
        rendered: whether texts are rendered already (``score``): a column ``text``, or ``prompt + candidate``.
        max_error_rate: more failed rows than this share are an error.
        progress: called with the number of rows after each.
        options: those of ``ranker.load``.

    Returns:
        Rows written, rows with an error, and the first error.

    Raises:
        InterruptedRunError: Ctrl-C or SIGTERM; a file that was being written is not there.
        DataError: more than ``max_error_rate`` of the rows, or all of them, had an error; the output is complete.
    """
    from ranker.jobs.stream import score_stream

    check_output(str(target))
    if isinstance(source, str | Path):
        Source.parse(str(source)).check(columns)
    scorer = load(model, **options).scorer
    first = None if prefilter is None else load(prefilter, **options).scorer
    return score_stream(
        operation,
        scorer,
        str(source) if isinstance(source, str | Path) else named_rows(source),
        str(target),
        columns=columns,
        schedule=schedule,
        budget=budget,
        prefilter=first,
        keep=keep,
        rendered=rendered,
        max_error_rate=max_error_rate,
        progress=progress or (lambda rows: None),
    )
