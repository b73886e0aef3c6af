"""SteamSHP and any other encoder-decoder that answers A or B; it has no head of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files, bare
from ranker.checkpoints.formats.checkpoint_format import Description
from ranker.checkpoints.formats.hf_classifier import TransformersFormat
from ranker.checkpoints.report import CheckpointReport, HeadReport, Problem

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec

LENGTH: Final = 512
"""Tokens that SteamSHP was trained with."""


class SteamSHP(TransformersFormat):
    """The library's model, asked SteamSHP's question."""

    name = "T5 (SteamSHP)"
    about = Description(
        producers="SteamSHP, any T5 or joined encoders",
        recognised_by="class name `T5ForConditionalGeneration` or `EncoderDecoderModel`",
        head="its words A and B",
        scored="first word of the answer",
    )
    scored_state = "answer_token"

    def matches(self, files: Files) -> bool:
        """By the class that the configuration names."""
        return files.architecture in ("T5ForConditionalGeneration", "EncoderDecoderModel")

    def head_problems(self, files: Files, head: HeadReport | None) -> list[Problem]:
        """The word A against the word B needs no head, but words of their own where they are not tied."""
        tied = files.config.get("tie_word_embeddings", True)
        if not files.shapes or tied or files.architecture != "T5ForConditionalGeneration":
            return []
        if any(bare(name) == "lm_head.weight" for name in files.shapes):
            return []
        what = (
            "the words that answers are read from, 'lm_head.weight', are missing, and config.json says that they are "
            "not those of the input (tie_word_embeddings: false), so they would be newly initialised"
        )
        return [Problem(what, "use a checkpoint that still has them", fatal=True)]

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """As our own SteamSHP."""
        from transformers import AutoTokenizer
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        from ranker.checkpoints.formats.spec import PROMPT_RESERVE, LoadSpec
        from ranker.models import steamshp

        config = CONFIG_MAPPING[values["model_type"]].from_dict(values)
        config.ranker = steamshp.settings(AutoTokenizer.from_pretrained(folder), LENGTH, PROMPT_RESERVE)
        return LoadSpec(config, steamshp.answer_class(config))
