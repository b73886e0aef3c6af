"""Token classifiers with one label: verl, LLaMA-Factory v1, NeMo-RL's regression. Their heads have a bias."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import CheckpointReport
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec


class TokenClassifier(CheckpointFormat):
    """A token classifier, read at the last token of the mask."""

    name = "HF token classification"
    about = Description(
        producers="verl, LLaMA-Factory v1, NeMo-RL's regression",
        recognised_by="class name ends with `ForTokenClassification`",
        head="`score` with a bias",
        scored="last token of the mask",
    )
    scored_state = "last_token"

    def matches(self, files: Files) -> bool:
        """By the class that the configuration names."""
        return files.architecture.endswith("ForTokenClassification")

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """A decoder's classifier on its last token.

        Raises:
            CheckpointError: an encoder, which has no last token.
        """
        from ranker.checkpoints.formats.classifiers import classifier
        from ranker.checkpoints.formats.spec import StoredHead
        from ranker.models.backbones import DECODERS

        if values["model_type"] not in DECODERS:
            raise CheckpointError(
                f"{folder}: a token classifier on '{values['model_type']}' scores every token; expected a decoder"
            )
        return classifier(folder, values, StoredHead.of(report, with_bias=True))
