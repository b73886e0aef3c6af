"""A run and its folder: one run at a time, what a new run may replace, and where a resumed one continues."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from filelock import FileLock, Timeout

from ranker import atomic
from ranker.checkpoints import weights
from ranker.config import ExportPrecision, RunConfig, dump_config
from ranker.config.models import ArmoRMConfig
from ranker.data.writers import check_folder
from ranker.errors import CheckpointError, ConfigError, JobError
from ranker.records import Preference
from ranker.runtime.modelfile import exported_name

logger = logging.getLogger(__name__)

LOCK: Final = ".lock"
RECORD: Final = "config.yaml"
STEPS: Final = "steps"
FINAL: Final = "checkpoint"
FOLDERS: Final = (STEPS, FINAL, "adapter")
"""Folders of a run's weights."""

FILES: Final = (
    *(exported_name(precision) for precision in get_args(ExportPrecision)),
    "report.html",
    "report.md",
    "metrics.json",
    "examples.parquet",
    "learning.png",
)
"""Files that a run makes of its weights."""

NO_LOCKS: Final = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
"""What file systems without locks answer."""

AFTERWARDS: Final = (
    "recipe",
    "export.",
    "card.",
    "training.report_to",
    "training.logging_steps",
    "training.save_steps",
    "training.save_minutes",
    "training.prefetch_batches",
    "data.test",
    "data.max_test_samples",
)
"""Beginnings of settings that change nothing of the training, so that a resumed run may have others. Test rows that
leave out other training rows are refused by ``check_plan``."""

CHECKSUMS: Final = "checksums.sha256"
"""The file of a checkpoint that has the SHA-256 of all others; ``sha256sum -c`` reads it."""

PLAN: Final = "plan.sha256"
TOKENS: Final = "max_tokens_per_forward"
"""The file that holds the tokens of a run's forward passes, for a resumed run that finds them itself."""

STATE: Final = "trainer_state.json"
END: Final = "end.json"
"""The file that says that the training is finished, in the place of the checkpoints that led there."""


@contextmanager
def only_run(output: Path) -> Iterator[None]:
    """Hold the folder of a run for this process; the lock ends with the process, however it ends.

    Raises:
        JobError: another process trains in the folder.
        OutputError: the folder cannot be written.
    """
    check_folder(output)
    lock = FileLock(output / LOCK, timeout=0, is_singleton=True)
    try:
        lock.acquire()
    except Timeout as error:
        raise JobError(
            f"{output}: another process is training in this folder; wait until it has finished, or choose another "
            "output_dir"
        ) from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        logger.warning("%s: this file system has no locks; do not start a second run in this folder", output)
        yield
        return
    try:
        yield
    finally:
        lock.release()


def check_output(config: RunConfig, output: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse what would lose an earlier run in the folder by chance; nothing is changed.

    Raises:
        ConfigError: an earlier run is there and neither was asked for, there is nothing to resume, the interrupted run
            had other settings, or ``overwrite`` would delete what the run starts from.
    """
    if resume and overwrite:
        raise ConfigError("--resume continues the earlier run and --overwrite deletes it; choose one of them")
    if resume:
        if isinstance(config.model, ArmoRMConfig):
            raise ConfigError(f"{output}: armorm is fitted in one go and has nothing to resume; use --overwrite")
        if not checkpoints_of(output) or not (output / RECORD).is_file():
            raise ConfigError(
                f"{output}: expected checkpoints to resume from, found none; start the run without --resume "
                "(resume=True), or with --overwrite where an earlier one left other files"
            )
        _check_settings(config, output)
    elif not overwrite:
        check_unused(output)
    elif earlier(output):
        _check_sources(config, output)


def check_unused(output: Path) -> None:
    """Refuse a folder that holds an earlier run.

    Raises:
        ConfigError: naming its files.
    """
    earlier_files = earlier(output)
    if earlier_files:
        raise ConfigError(
            f"{output}: holds an earlier run ({', '.join(path.name for path in earlier_files)}). Continue it with "
            "--resume (resume=True), delete it with --overwrite (overwrite=True), or choose another output_dir"
        )


def begin_output(config: RunConfig, output: Path, *, resume: bool, overwrite: bool) -> None:
    """Make the folder of a run that ``check_output`` allowed; with ``overwrite`` an earlier run is removed.

    Only what a run writes is removed; other files in the folder stay.
    """
    atomic.remove_leftovers(output)
    atomic.remove_leftovers(output / STEPS)
    for path in earlier(output) if overwrite else ():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if not resume:
        for name in (PLAN, END):
            (output / STEPS / name).unlink(missing_ok=True)
    atomic.write_text(output / RECORD, dump_config(config))


def earlier(output: Path) -> list[Path]:
    """What an earlier run left: its checkpoints in order, the final one, its adapter, its exports and reports."""
    return [*checkpoints_of(output), *(output / name for name in FILES if (output / name).exists())]


def checkpoints_of(output: Path) -> list[Path]:
    """Weights of an earlier run: its checkpoints in order, then the final one and its adapter."""
    final = [output / name for name in FOLDERS[1:] if (output / name).is_dir()]
    return [*_by_step(output), *final]


def _check_settings(config: RunConfig, output: Path) -> None:
    """Refuse to resume a run under other settings.

    Raises:
        ConfigError: naming the settings that differ.
    """
    now = _flat(yaml.safe_load(dump_config(config)))
    before = _flat(yaml.safe_load((output / RECORD).read_text(encoding="utf-8")))
    changed = [
        f"{key} was {before.get(key)}, is {now.get(key)}"
        for key in {**before, **now}
        if before.get(key) != now.get(key) and not key.startswith(AFTERWARDS)
    ]
    if changed:
        raise ConfigError(
            f"{output}: the earlier run had other settings: {'; '.join(changed)}. Resume with the same settings, "
            "delete the earlier run with --overwrite (overwrite=True), or choose another output_dir"
        )


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return flat


def _check_sources(config: RunConfig, output: Path) -> None:
    """Refuse to delete a model that the run starts from.

    Raises:
        ConfigError: naming it.
    """
    sources = {"model.name_or_path": config.model.name_or_path}
    if config.lora is not None and config.lora.continue_from is not None:
        sources["lora.continue_from"] = config.lora.continue_from
    deleted = {(output / folder).resolve() for folder in FOLDERS}
    for name, source in sources.items():
        path = Path(source).resolve()
        if not deleted.isdisjoint((path, *path.parents)):
            raise ConfigError(
                f"--overwrite would delete {name} '{source}', which this run starts from; choose another output_dir"
            )


def newest_whole(output: Path) -> Path:
    """The checkpoint to resume from: the newest whose files are all there and not cut.

    Raises:
        CheckpointError: none is whole; the reason of the newest is given.
    """
    reasons: list[str] = []
    for folder in reversed(_by_step(output)):
        reason = damage(folder)
        if reason is None:
            if reasons:
                logger.warning("%s; resuming from %s", "; ".join(reasons), folder.name)
            return folder
        reasons.append(f"{folder.name} is not whole ({reason})")
    raise CheckpointError(
        f"{output / STEPS}: {'; '.join(reasons) or 'there is no checkpoint'}; start anew with --overwrite"
    )


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of every file of a checkpoint, in the format of ``sha256sum``, as the last file of it."""
    lines = [f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)]
    atomic.write_text(folder / CHECKSUMS, "".join(lines))


def _files(folder: Path) -> list[str]:
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in names if name != CHECKSUMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def damage(folder: Path) -> str | None:
    """Why training cannot continue from a checkpoint, by its files alone; None where it can.

    Checkpoints of earlier versions have no checksums; of those the most is found that can be seen without.
    """
    try:
        step = json.loads((folder / STATE).read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{STATE} is missing or cut"
    if folder.name != f"checkpoint-{step}":
        return f"{STATE} is that of step {step}"
    return _changed(folder) if (folder / CHECKSUMS).is_file() else _incomplete(folder)


def _incomplete(folder: Path) -> str | None:
    """What a checkpoint without checksums lacks, as far as its files show."""
    for name in ("optimizer.pt", "scheduler.pt"):
        if (folder / name).exists() and not zipfile.is_zipfile(folder / name):
            return f"{name} is cut"
    if not any(folder.glob("scheduler.pt")) and not any(folder.glob("global_step*")):
        return "the scheduler's state is missing"
    if not any(folder.glob("optimizer*")) and not any(folder.glob("global_step*")):  # DeepSpeed has folders
        return "the optimizer's state is missing"
    if not any(folder.glob("rng_state*.pth")):
        return "the random states are missing"
    from ranker.checkpoints import adapters

    adapter = folder / adapters.WEIGHTS
    try:
        for file in [adapter] if adapter.exists() else weights.weight_files(folder):
            weights.headers(file)
    except CheckpointError as error:
        return str(error)
    return None


def _changed(folder: Path) -> str | None:
    """The first file that is not the one whose checksum was written; None where all are."""
    for line in (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if not (folder / name).is_file():
            return f"{name} is missing"
        if _sha256(folder / name) != digest:
            return f"{name} was changed: its checksum is another"
    return None


@dataclass(frozen=True, slots=True)
class End:
    """A training that is finished: a hash of its rows, its steps, seconds, tokens per second, rate, and its log."""

    rows: str
    steps: int
    seconds: float
    tokens_per_second: float
    learning_rate: float | None
    history: list[dict[str, Any]]


def write_end(output: Path, end: End) -> None:
    """Say that the training is finished and its model is in ``FINAL``, and remove the checkpoints that led there.

    What follows, evaluation and export, needs only that model.
    """
    facts = {**asdict(end), "weights": weights.digest(output / FINAL)}
    atomic.write_text(output / STEPS / END, json.dumps(facts) + "\n")
    remove_checkpoints(output)


def remove_checkpoints(output: Path) -> None:
    """Remove the checkpoints of a training that is finished."""
    for folder in _by_step(output):
        shutil.rmtree(folder)


def rows_digest(*parts: Sequence[Preference]) -> str:
    """A hash of rows, in order."""
    digest = hashlib.sha256()
    for rows in parts:
        digest.update(f"{len(rows)} rows".encode())
        for row in rows:
            digest.update(repr(row).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def read_end(output: Path) -> End | None:
    """The end of a training that is finished; None of one that is not.

    Raises:
        CheckpointError: the model is not the one that was trained.
    """
    file = output / STEPS / END
    if not file.is_file():
        return None
    try:
        facts = json.loads(file.read_text(encoding="utf-8"))
        digest = facts.pop("weights")
        end = End(**facts)
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{file}: damaged; start anew with --overwrite") from error
    if not (output / FINAL).is_dir() or weights.digest(output / FINAL) != digest:
        raise CheckpointError(
            f"{output / FINAL}: its weights are not those of the finished training; start anew with --overwrite, or "
            "use ranker eval and ranker export on what is there"
        )
    return end


OTHER_ROWS: Final = (
    "{folder}: the rows of data.train (or those left out of it because of data.validation or data.test), "
    "their order, or the number of processes changed since the run was interrupted; restore them, start anew with "
    "--overwrite, or choose another output_dir"
)


def check_plan(path: Path, digest: str, resume: bool) -> None:
    """Bind a run to its data: a resumed run must go on with the same rows in the same batches.

    Raises:
        ConfigError: the data are not those of the interrupted run.
    """
    if resume and path.is_file() and path.read_text(encoding="ascii") != digest:
        raise ConfigError(OTHER_ROWS.format(folder=path.parent))
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, digest)


def _by_step(output: Path) -> list[Path]:
    folders = [
        path for path in (output / STEPS).glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdecimal()
    ]
    return sorted(folders, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint, from its name."""
    return int(checkpoint.name.removeprefix("checkpoint-"))
