"""Our own ArmoRM: a regression of aspects and a gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import Description, OwnFormat
from ranker.checkpoints.report import Scored

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec

MODEL_TYPE: Final = "ranker_gated"


class RankerArmoRM(OwnFormat):
    """An ArmoRM; its configuration says how it pools."""

    name = "ranker armorm"
    about = Description(
        producers="`ranker train`, `model.type` `armorm`",
        recognised_by=f"`model_type` is `{MODEL_TYPE}`",
        head="`regression_layer`, `reward_transform_matrix`, `gating`",
        scored="as `pooling` in its configuration",
    )

    def matches(self, files: Files) -> bool:
        """By the model type of its configuration."""
        return files.config.get("model_type") == MODEL_TYPE

    def scored(self, files: Files) -> Scored:
        """As its configuration says."""
        state: Scored = files.config["pooling"]
        return state

    def load_own(self, folder: Path, values: dict[str, Any]) -> LoadSpec:
        """As its configuration says."""
        from ranker.checkpoints.formats.spec import LoadSpec
        from ranker.models.armorm import GatedConfig, GatedModel

        return LoadSpec(GatedConfig.from_dict(values), GatedModel)
