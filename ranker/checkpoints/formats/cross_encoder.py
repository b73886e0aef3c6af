"""sentence-transformers' ``CrossEncoder``: a classifier that encodes a pair by the tokenizer's own pair template."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.formats.hf_classifier import classifier_state
from ranker.checkpoints.formats.modules_file import SETTINGS
from ranker.checkpoints.report import CheckpointReport, Scored
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec, Source

IDENTITY: Final = "torch.nn.modules.linear.Identity"
"""The activation that makes ``CrossEncoder.predict`` return raw logits."""


UNRENDERED: Final = (
    "a version of sentence-transformers before 5.4 wrote it, which encodes a pair without the chat template, and so "
    "does this package; later versions render the pair, with other scores"
)


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
        """A classifier; a decoder's pairs are encoded by the tokenizer's pair template, or by its chat template.

        Raises:
            CheckpointError: a module or a setting that is not read, or a chat template that reads no pair.
        """
        from ranker.checkpoints.formats.classifiers import before_the_end, classifier
        from ranker.checkpoints.formats.modules_file import SentenceTransformers
        from ranker.checkpoints.formats.reranker_text import pair_layout
        from ranker.checkpoints.formats.spec import StoredHead
        from ranker.models.backbones import DECODERS

        described = SentenceTransformers.read(folder)
        if described.modules:
            kinds = ", ".join(module.kind for module in described.modules)
            raise CheckpointError(f"{folder}: a classifier followed by {kinds}, which is not read")
        spec = classifier(folder, values, StoredHead.of(report))
        config = spec.config
        config.ranker["text"] = pair_layout(folder, config, described, config.ranker["head"]).model_dump(mode="json")
        if config.model_type not in DECODERS:
            return spec
        return before_the_end(replace(spec, notes=(UNRENDERED,) if described.ignores_template else ()), folder)

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
