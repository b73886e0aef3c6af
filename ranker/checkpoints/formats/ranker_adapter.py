"""An adapter that ``ranker train`` wrote: peft's two files, our settings and the tokenizer."""

from __future__ import annotations

from typing import Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import HeadReport, Problem

SETTINGS: Final = "ranker_adapter.json"


class RankerAdapter(CheckpointFormat):
    """An adapter of ours. ``adapters.load`` reads it and checks its head."""

    name = "ranker adapter"
    about = Description(
        producers="`ranker train` with `lora.r`",
        recognised_by=f"file `{SETTINGS}`",
        head="with the adapter",
        scored="as its base",
        converted="no; [merge it](#convert) first",
    )
    native = True

    def matches(self, files: Files) -> bool:
        """By the settings beside it."""
        return files.has_file(SETTINGS)

    def head_problems(self, files: Files, head: HeadReport | None) -> list[Problem]:
        """None here: ``adapters.check_head`` compares the head with the modules that peft's configuration lists."""
        return []
