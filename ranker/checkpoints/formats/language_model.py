"""A language model without a head: nothing in it gives a score."""

from __future__ import annotations

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description


class LanguageModel(CheckpointFormat):
    """Named, so that ``ranker inspect`` says what it is; not read."""

    name = "language model without a head"
    about = Description(
        producers="any language model",
        recognised_by="class name ends with `ForCausalLM` or `LMHeadModel`",
        head="none",
        scored="not read",
    )
    readable = False

    def matches(self, files: Files) -> bool:
        """By the class that the configuration names."""
        return files.architecture.endswith(("ForCausalLM", "LMHeadModel"))
