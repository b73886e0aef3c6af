"""An adapter of peft; it is read onto its base model (``adapter_base``), which may hold the head."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import CheckpointReport, HeadReport, Problem
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec


class PeftAdapter(CheckpointFormat):
    """A peft adapter on a reward model of another trainer. ``adapters.load`` reads it."""

    name = "PEFT adapter"
    about = Description(
        producers="peft, on any decoder or encoder of this table",
        recognised_by="file `adapter_config.json`",
        head="with the adapter, beside it, or its base's",
        scored="as its base",
        converted="no; [merge it](#convert) first",
    )

    def matches(self, files: Files) -> bool:
        """By peft's configuration."""
        return files.has_file("adapter_config.json")

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """Refuse a folder that holds a whole model too; ``adapters.load`` reads the others.

        Raises:
            CheckpointError: always.
        """
        raise CheckpointError(f"{folder}: holds an adapter and a whole model; keep one of the two in the folder")

    def head_problems(self, files: Files, head: HeadReport | None) -> list[Problem]:
        """A head that is neither in the adapter nor in its base."""
        from ranker.checkpoints.inspection import inspect  # which looks up this format

        base = Path(str(files.config.get("base_model_name_or_path") or ""))
        if head is not None or ((base / "config.json").is_file() and inspect(base).head is not None):
            return []
        repair = "look for the head in the run's full checkpoint, or train again with modules_to_save=['score']"
        return [Problem("the adapter holds no head, so the scores would be noise", repair, fatal=True)]
