"""Our own pointwise reward models: the library's classifiers with our section in ``config.json``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats.checkpoint_format import Description, OwnFormat
from ranker.checkpoints.report import Scored
from ranker.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from ranker.checkpoints.formats.spec import LoadSpec


class RankerPointwise(OwnFormat):
    """A pointwise reward model; its configuration says how it pools."""

    name = "ranker pointwise"
    about = Description(
        producers="`ranker train`, `model.type` `pointwise`",
        recognised_by="`ranker` in `config.json`",
        head="`score` or `classifier`",
        scored="as `ranker.pooling` in its configuration",
    )

    def matches(self, files: Files) -> bool:
        """By our section in its configuration."""
        return "ranker" in files.config

    def scored(self, files: Files) -> Scored:
        """As our section says."""
        state: Scored = str((files.config.get("ranker") or {}).get("pooling", "unknown"))  # type: ignore[assignment]
        return state

    def load_own(self, folder: Path, values: dict[str, Any]) -> LoadSpec:
        """The library's classifier, reading as our section says."""
        from ranker.checkpoints.formats.spec import LoadSpec
        from ranker.models.pointwise import JUDGE, judge_class, reward_class

        config = library_config(folder, values)
        return LoadSpec(config, (judge_class if config.ranker["head"] == JUDGE else reward_class)(config))


def library_config(folder: Path, values: dict[str, Any]) -> PretrainedConfig:
    """The library's configuration, of a backbone that is pooled over all tokens too.

    Raises:
        CheckpointError: the backbone is not known to transformers.
    """
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    from ranker.models.backbones import MEAN_POOLED
    from ranker.models.pointwise import mean_pooled

    family = str(values.get("model_type"))
    known = family.removeprefix(MEAN_POOLED)
    if known not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{folder}: backbone '{family}' is not known to transformers; see: ranker inspect {folder}"
        )
    base = CONFIG_MAPPING[known]
    config: PretrainedConfig = (base if known == family else mean_pooled(base)).from_dict(values)
    return config
