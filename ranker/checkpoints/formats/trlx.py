"""trlx's reward model: a raw state dict with ``v_head.weight``, beside it the base model's configuration.

Padding is the end-of-text token there and the token before the first padding is scored: the answer's last token.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description, rename_to_score
from ranker.checkpoints.report import CheckpointReport, HeadReport, Problem
from ranker.checkpoints.weights import KeyMap

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec

HEAD: Final = "v_head"


class Trlx(CheckpointFormat):
    """The state dict on the base model's configuration, read at the answer's last token."""

    name = "trlx"
    about = Description(
        producers="trlx: a raw state dict",
        recognised_by="a tensor `v_head.weight`",
        head="`v_head`",
        scored="last token before the end of text",
    )
    head_name = HEAD
    names_labels = False
    scored_state = "last_nonpad"

    def matches(self, files: Files) -> bool:
        """By the head."""
        return files.has_tensor(f"{HEAD}.weight")

    def renamed_head_problem(self, head: HeadReport) -> Problem | None:
        """Its head has another name than the library's."""
        return rename_to_score(head)

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """A classifier whose texts end with the answer."""
        from ranker.checkpoints.formats.classifiers import classifier
        from ranker.checkpoints.formats.spec import StoredHead
        from ranker.text.formats import trlx

        spec = classifier(folder, values, StoredHead.of(report))
        text = spec.config.ranker["text"]
        ends = spec.config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), spec.config.pad_token_id} - {None}
        text["chat"] = trlx(text["chat"]["variables"]).model_dump(mode="json") | {"skipped_ends": sorted(ends)}
        return replace(spec, names=KeyMap({HEAD: "score"}, ("lm_head.",)))
