"""A run and its folder: what a resumed run must have in common with the one that was interrupted."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ranker.config import RunConfig, dump_config
from ranker.errors import ConfigError

logger = logging.getLogger(__name__)


def prepare_output(config: RunConfig, output: Path, resume: bool) -> None:
    """Make the run's folder; a resumed run must be the same run, a new one starts without old checkpoints.

    Raises:
        ConfigError: nothing to resume, or a configuration that differs from the one that was interrupted.
    """
    text, record = dump_config(config), output / "config.yaml"
    checkpoints = sorted((output / "steps").glob("checkpoint-*"))
    if resume:
        if not checkpoints or not record.is_file():
            raise ConfigError(f"{output}: expected checkpoints to resume from, found none; run without --resume")
        before = record.read_text(encoding="utf-8")
        if text != before:
            changed = [line.strip() for line in text.splitlines() if line not in before.splitlines()]
            raise ConfigError(
                f"{output}: the interrupted run had other settings; differing now: "
                f"{'; '.join(changed) or 'the order of entries'}. Resume with the same, or start anew without --resume"
            )
        return
    if checkpoints:
        logger.warning("%s: removing %d checkpoints of an earlier run", output / "steps", len(checkpoints))
        for folder in checkpoints:
            shutil.rmtree(folder)
    output.mkdir(parents=True, exist_ok=True)
    record.write_text(text, encoding="utf-8")


def check_plan(path: Path, digest: str, resume: bool) -> None:
    """Bind a run to its data: a resumed run must go on with the same rows in the same batches.

    Raises:
        ConfigError: the data are not those of the interrupted run.
    """
    if resume and path.is_file() and path.read_text(encoding="ascii") != digest:
        raise ConfigError(
            f"{path.parent}: the training data or the number of processes changed since the run was interrupted; "
            "start it anew"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(digest, encoding="ascii")
