"""The library's sequence classifiers: transformers, TRL, RLHFlow, NeMo-RL, OpenAssistant.

One output is a reward, two are reject and accept (log-odds), more are aspects. The outputs are counted in the file: a
configuration without ``num_labels`` means two to the library, and is corrected.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import CheckpointReport, Scored
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec, Source


CUSTOM: Final = "AutoModelForSequenceClassification"
"""The entry of ``auto_map`` for code that comes with a checkpoint."""


class TransformersFormat(CheckpointFormat):
    """What transformers loads with a class of its own: classifiers, and encoder-decoders that answer."""

    target: ClassVar[str | None] = "hf"
    read_by_transformers: ClassVar[bool] = True

    def write(self, source: Source, folder: Path) -> list[str]:
        """The folder as ``AutoModelForSequenceClassification`` or ``AutoModelForSeq2SeqLM`` reads it.

        Raises:
            CheckpointError: the library has no class for such a model.
        """
        from ranker.checkpoints.formats.classifiers import write_for_transformers

        return write_for_transformers(source, folder)


class HFClassifier(TransformersFormat):
    """A sequence classifier. The last id that is not padding is scored, as the library does."""

    name = "HF sequence classification"
    about = Description(
        producers="TRL, RLHFlow, NeMo-RL, OpenAssistant, transformers",
        recognised_by="class name ends with `ForSequenceClassification`",
        head="`score` or `classifier`",
        scored="first token, or last that is not padding",
    )

    def matches(self, files: Files) -> bool:
        """By the class that the configuration names."""
        return files.architecture.endswith("ForSequenceClassification")

    def scored(self, files: Files) -> Scored:
        """A decoder's last token; an encoder's first, or the mean of all."""
        return classifier_state(files)

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """A head on a pooled state, or on the last token before the padding."""
        from ranker.checkpoints.formats.classifiers import before_the_end, classifier
        from ranker.checkpoints.formats.reranker_text import ROLES, names_roles
        from ranker.checkpoints.formats.spec import StoredHead
        from ranker.models.backbones import DECODERS

        if CUSTOM in (values.get("auto_map") or {}):
            raise CheckpointError(
                f"{folder}: config.json names code of its own for the classifier (auto_map), which is not run here, "
                "and the library's class may score otherwise; if it is the library's, remove the entry"
            )
        spec = classifier(folder, values, StoredHead.of(report))
        chat = spec.config.ranker["text"].get("chat")
        if chat is not None and names_roles(chat["template"]):
            chat["pair_roles"] = ROLES
        return before_the_end(spec, folder) if spec.config.model_type in DECODERS else spec


def classifier_state(files: Files) -> Scored:
    """The state that a classifier of the library reads."""
    if "score.weight" in files.shapes:
        return "last_nonpad"
    return "mean" if files.config.get("classifier_pooling") == "mean" else "first_token"
