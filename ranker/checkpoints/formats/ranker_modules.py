"""Our own folder of a backbone, a pooling and small modules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import Description, OwnFormat

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec

MODEL_TYPE: Final = "ranker_modules"


class RankerModules(OwnFormat):
    """A stack of modules; its configuration names them."""

    name = "ranker modules"
    about = Description(
        producers="`ranker convert` of a modular reranker",
        recognised_by=f"`model_type` is `{MODEL_TYPE}`",
        head="`head`",
        scored="as `pooling` in its configuration",
    )

    def matches(self, files: Files) -> bool:
        """By the model type of its configuration."""
        return files.config.get("model_type") == MODEL_TYPE

    def load_own(self, folder: Path, values: dict[str, Any]) -> LoadSpec:
        """As its configuration says."""
        from ranker.checkpoints.formats.spec import LoadSpec
        from ranker.models.modules import ModulesConfig, ModulesModel

        return LoadSpec(ModulesConfig.from_dict(values), ModulesModel)
