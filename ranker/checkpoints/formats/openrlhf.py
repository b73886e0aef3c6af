"""OpenRLHF's ``RewardModel``: a bias-free head of any name on the last token of the mask.

Its configuration names no labels, and names the head (``value_head_prefix``) only at the end of a run. ``mean`` and
``std`` are kept beside the raw scores, which are not normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description, rename_to_score
from ranker.checkpoints.report import CheckpointReport, HeadReport, Problem
from ranker.checkpoints.weights import KeyMap
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec, Source

HEAD: Final = "score"
"""The head's name since OpenRLHF 0.3.9; ``value_head`` before."""

ARCHITECTURES: Final = ("RewardModel", "LLMForSequenceRegression")


class OpenRLHF(CheckpointFormat):
    """A reward model with or without ``num_labels``, whatever the name of its head."""

    name = "OpenRLHF"
    about = Description(
        producers="OpenRLHF, `value_head` or `score`",
        recognised_by="class name `RewardModel`, `value_head_prefix` in `config.json`, or a tensor `value_head`",
        head="any name (`value_head_prefix`)",
        scored="last token of the mask",
    )
    target = "openrlhf"
    names_labels = False
    scored_state = "last_token"

    def matches(self, files: Files) -> bool:
        """By its class, the head's name in its configuration, or the head."""
        return (
            files.architecture in ARCHITECTURES
            or "value_head_prefix" in files.config
            or files.has_tensor("value_head.")
        )

    def default_outputs(self, files: Files, rows: int) -> int:
        """Two to transformers, as the configuration names no labels; the head has one."""
        return 2

    def renamed_head_problem(self, head: HeadReport) -> Problem | None:
        """A head of another name than the library's."""
        return rename_to_score(head)

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """A classifier whose texts end as OpenRLHF ends them."""
        from ranker.checkpoints.formats.classifiers import classifier
        from ranker.checkpoints.formats.spec import StoredHead

        return ended(classifier(folder, values, StoredHead.of(report), without_template="openrlhf"))

    def write(self, source: Source, folder: Path) -> list[str]:
        """The folder as OpenRLHF's ``get_llm_for_sequence_regression(path, "reward")`` reads it.

        Raises:
            CheckpointError: not a decoder with one output, or one that does not read the end of text.
        """
        from ranker.checkpoints.formats.classifiers import without_bias
        from ranker.checkpoints.formats.spec import decoder_config, write
        from ranker.models.pointwise import last_read_id

        config = source.config
        values = decoder_config(source, "openrlhf", "RewardModel")
        last = last_read_id(source.model.layout, source.tokenizer)
        chat = getattr(source.model.layout, "chat", None)
        if chat is None or last is None or source.tokenizer.token(last) != chat.variables.get("eos_token"):
            raise CheckpointError(
                "this model does not read the end-of-text token, and OpenRLHF scores that token, so its scores would "
                "be others; choose --to hf"
            )
        normalisation = config.ranker.get("normalisation") or {}
        values |= {**normalisation, "value_head_prefix": HEAD, "normalize_reward": bool(normalisation)}
        source, notes = without_bias(source)
        write(source, folder, KeyMap({}), values)
        return notes


def ended(spec: LoadSpec) -> LoadSpec:
    """The same with texts that end as OpenRLHF's: without line breaks, with the end of text, which is scored.

    Source: ``RewardDataset.__getitem__`` of OpenRLHF 0.11.
    """
    chat = spec.config.ranker["text"]["chat"]
    chat["end"] = chat["variables"].get("eos_token") or ""
    return spec
