"""sentence-transformers' ``CrossEncoder``: a classifier that encodes a pair by the tokenizer's own pair template."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.formats.hf_classifier import classifier_state
from ranker.checkpoints.report import CheckpointReport, Scored
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec, Source

SETTINGS: Final = "config_sentence_transformers.json"
"""Where sentence-transformers keeps its settings since version 5.4."""

IDENTITY: Final = "torch.nn.modules.linear.Identity"
"""The activation that makes ``CrossEncoder.predict`` return raw logits."""


class CrossEncoder(CheckpointFormat):
    """A ``CrossEncoder``. Scores are raw logits, whatever activation it names."""

    name = "sentence-transformers CrossEncoder"
    about = Description(
        producers="sentence-transformers",
        recognised_by="`sentence_transformers` in `config.json`",
        head="`classifier`",
        scored="first token",
    )
    target = "crossencoder"

    def matches(self, files: Files) -> bool:
        """By the section, or since version 5.4 the file, that sentence-transformers writes."""
        return "sentence_transformers" in files.config or (
            files.has_file(SETTINGS) and files.architecture.endswith("ForSequenceClassification")
        )

    def scored(self, files: Files) -> Scored:
        """As the library's classifiers."""
        return classifier_state(files)

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """A classifier; a decoder's pairs are encoded by the tokenizer's pair template.

        Raises:
            CheckpointError: the folder adds a prompt to texts, or renders pairs by a chat template.
        """
        from transformers import AutoTokenizer

        from ranker import layouts
        from ranker.checkpoints.formats.classifiers import before_the_end, classifier
        from ranker.checkpoints.formats.spec import StoredHead
        from ranker.layouts.pointwise import Pointwise
        from ranker.models.backbones import DECODERS
        from ranker.models.pointwise import pair_parts

        _check_settings(folder)
        spec = classifier(folder, values, StoredHead.of(report))
        config = spec.config
        if config.model_type not in DECODERS:
            return spec
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.chat_template is not None:
            raise CheckpointError(
                f"{folder}: a CrossEncoder on a decoder with a chat template, which sentence-transformers renders with "
                "a query and a document; such a reranker is not read yet"
            )
        text = layouts.parse(config.ranker["text"])
        config.ranker["text"] = Pointwise(
            output=config.ranker["head"],
            max_length=text.max_length,
            prompt_reserve=text.prompt_reserve,
            pad_id=text.pad_id,
            truncation="longest_first",
            truncation_side="left" if tokenizer.truncation_side == "left" else "right",
            **pair_parts(tokenizer),
        ).model_dump()
        return before_the_end(replace(spec, notes=()), folder)

    def write(self, source: Source, folder: Path) -> list[str]:
        """The folder as ``CrossEncoder(path).predict`` reads it, with raw logits as its default.

        Raises:
            CheckpointError: not an encoder that is read at its first token.
        """
        from ranker.checkpoints.formats.classifiers import write_for_transformers
        from ranker.checkpoints.formats.spec import plain_config, refused, write_json
        from ranker.models.pointwise import HEADS, RewardReading

        if not isinstance(source.model, RewardReading) or source.config.model_type not in HEADS:
            raise refused(source, "crossencoder", "encoder classifiers read at the first token")
        notes = write_for_transformers(source, folder)
        values = plain_config(source, type(source.model).__name__)
        write_json(folder / "config.json", values | {"sentence_transformers": {"activation_fn": IDENTITY}})
        return notes


def _check_settings(folder: Path) -> None:
    """Refuse texts that sentence-transformers puts before a query.

    Raises:
        CheckpointError: naming the setting.
    """
    path = folder / SETTINGS
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    name = settings.get("default_prompt_name")
    if name is not None and (settings.get("prompts") or {}).get(name):
        raise CheckpointError(
            f"{path}: default_prompt_name '{name}' puts a text before every query, which is not read yet; put it into "
            "your prompts and remove the setting"
        )
