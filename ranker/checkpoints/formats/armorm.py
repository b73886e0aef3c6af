"""ArmoRM as it is released (RLHFlow/ArmoRM-Llama3-8B-v0.1); its tensors have our names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import CheckpointFormat, Description
from ranker.checkpoints.report import CheckpointReport
from ranker.checkpoints.safety import COPY_AGAIN
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec


class ArmoRM(CheckpointFormat):
    """Regression, transform and gate; the gate's size is that of its tensors."""

    name = "ArmoRM"
    about = Description(
        producers="RLHFlow's ArmoRM",
        recognised_by="class name ends with `WithGating`, or tensors `regression_layer` and `gating`",
        head="`regression_layer`, `reward_transform_matrix`, `gating`",
        scored="last token; the gate reads the prompt's last",
        converted="`native` keeps its names",
    )
    head_name = "regression_layer"
    names_labels = False
    scored_state = "last_nonpad"

    def matches(self, files: Files) -> bool:
        """By its class, or by its tensors."""
        return files.architecture.endswith("WithGating") or (
            files.has_tensor("regression_layer.") and files.has_tensor("gating.")
        )

    def load(self, folder: Path, values: dict[str, Any], report: CheckpointReport) -> LoadSpec:
        """As our own ArmoRM.

        Raises:
            CheckpointError: the gate is missing.
        """
        from transformers import AutoTokenizer
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING

        from ranker.checkpoints.formats.spec import LoadSpec, StoredHead, outputs, text_of
        from ranker.config import GateConfig
        from ranker.layouts.conversation import Conversation
        from ranker.models.armorm import GatedConfig, GatedModel
        from ranker.models.pointwise import answer_header

        shapes = report.tensors
        layers = sorted(name for name in shapes if name.startswith("gating.layers.") and name.endswith(".weight"))
        if not layers:
            raise CheckpointError(f"{folder}: the gate, 'gating.layers.0.weight', is missing; {COPY_AGAIN}")
        gate = GateConfig(
            hidden=shapes[layers[0]][0],
            layers=len(layers) - 1,
            temperature=float(values.get("gating_temperature", 10.0)),
        )
        backbone = CONFIG_MAPPING[values["model_type"]].from_dict(values)
        head = StoredHead.of(report)
        text = text_of(folder, backbone, "gated", "first_token")
        if isinstance(text, Conversation):  # its own code looks for the header with its line breaks, or gives no score
            header = answer_header(AutoTokenizer.from_pretrained(folder), text.chat, line_breaks=True)
            text = text.model_copy(update={"gate_pattern": header})
        config = GatedConfig(
            backbone=backbone.to_dict(),
            text=text.model_dump(mode="json"),
            aspects=outputs(head.outputs, head.labels)[1],
            gate=gate.model_dump(),
            pooling="last_token",
        )
        return LoadSpec(config, GatedModel)
