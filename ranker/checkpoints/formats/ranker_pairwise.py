"""Our own pair rankers: ``shared_prompt``, ``set_encoder`` and ``ordered_pair``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import Description, OwnFormat

if TYPE_CHECKING:
    from ranker.checkpoints.formats.spec import LoadSpec

MODEL_TYPE: Final = "ranker_pairwise"


class RankerPairwise(OwnFormat):
    """A pair ranker, read at its markers."""

    name = "ranker pairwise"
    about = Description(
        producers="`ranker train`, `model.type` `shared_prompt`, `set_encoder` or `ordered_pair`",
        recognised_by=f"`model_type` is `{MODEL_TYPE}`",
        head="`head.out`",
        scored="markers",
    )
    scored_state = "markers"

    def matches(self, files: Files) -> bool:
        """By the model type of its configuration."""
        return files.config.get("model_type") == MODEL_TYPE

    def load_own(self, folder: Path, values: dict[str, Any]) -> LoadSpec:
        """As its configuration says."""
        from ranker.checkpoints.formats.spec import LoadSpec
        from ranker.models.pairwise import PairwiseConfig, PairwiseModel

        return LoadSpec(PairwiseConfig.from_dict(values), PairwiseModel)
