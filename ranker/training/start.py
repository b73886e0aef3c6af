"""What a run trains: a new head on a pretrained backbone, or a trained checkpoint whose training continues."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from ranker.checkpoints import native
from ranker.checkpoints.detection import candidates_for_head
from ranker.checkpoints.inspection import inspect
from ranker.checkpoints.report import CheckpointReport
from ranker.config import RunConfig
from ranker.config.models import PairwiseConfig, PointwiseConfig, SteamSHPConfig, TrainableConfig
from ranker.errors import CheckpointError, ConfigError
from ranker.models.backbones import FAMILIES, ROW_BY_ROW, family, read_without_padding, set_live_dropout, why_padded
from ranker.models.build import new_model
from ranker.models.heads import NEW_HEADS
from ranker.text.tokenizer import TextTokenizer
from ranker.training import lora

logger = logging.getLogger(__name__)


def starting_model(config: RunConfig) -> tuple[PreTrainedModel, TextTokenizer]:
    """The model that a run starts from.

    If the folder holds a head, in any format that ``ranker.load`` reads, its training continues, unless
    ``model.init_head`` asks for a new head. A folder whose head has an unknown name is refused, because its head would
    be lost in silence.

    Raises:
        ConfigError: the checkpoint is another kind of model than the recipe trains.
        CheckpointError: it is not whole, or its head has an unknown name.
    """
    model, name = config.model, config.model.name_or_path
    options = lora.options(config.lora, model)
    report = _trained(Path(name)) if Path(name).is_dir() else None
    if isinstance(model, SteamSHPConfig):  # it has no head that could be lost
        return new_model(model, config.output, options=options)
    if report is None or (isinstance(model, TrainableConfig) and model.init_head):
        new, tokenizer = new_model(model, config.output, options=options)
        logger.warning("new head on backbone '%s': scores mean nothing before training", name)
        if report is not None:
            _new_head(new)
        return new, tokenizer
    if config.lora is not None:
        raise ConfigError(
            f"model.name_or_path '{name}' is a trained model, and adapters start from a backbone and a new head; "
            "remove lora to train on with all weights, or set model.init_head=true"
        )
    if not report.readable:
        raise CheckpointError(f"{name}: format '{report.format}' cannot be trained on; merge it first: ranker merge")
    loaded, tokenizer = native.load(Path(name))  # a pickle is refused here, and told how to be converted
    _check_kind(config, loaded, name)
    set_live_dropout(loaded.base_model, getattr(model, "backbone_dropout", 0.0))
    logger.warning("training continues from '%s' (%s): its head and its layout are kept", name, report.format)
    return loaded, tokenizer


def without_padding(config: RunConfig, model: PreTrainedModel, device: str, *, bf16: bool) -> bool:
    """Apply ``training.padding_free``.

    ``auto`` is where it was measured to be faster: on a CPU passes of real rows, a fifth of them padding, take 0.86 of
    the time in fp32 and 1.1 in bf16. Both orders of a pair are equally long: a hundredth of their passes is padding,
    and nothing is gained.

    Args:
        config: of the run.
        model: to be trained.
        device: its type.
        bf16: whether it is trained under autocast.

    Returns:
        Whether rows are read without padding.

    Raises:
        ConfigError: it is asked for, and the layout or the family does not allow it.
    """
    wanted = config.training.padding_free
    dropout = getattr(config.model, "backbone_dropout", 0.0)
    if wanted == "auto":
        encoder = family(model.base_model.config) in FAMILIES
        pays = device == "cpu" and not bf16 and model.layout.layout != "ordered_pair"
        wanted = pays and dropout == 0 and encoder and why_padded(model, device) is None
    if not wanted:
        return False
    if dropout > 0 and family(model.base_model.config) not in ROW_BY_ROW:
        logger.warning(
            "training.padding_free: attention has no dropout; model.backbone_dropout %g is that of the other layers",
            dropout,
        )
    read_without_padding(model, device)
    return True


def _trained(folder: Path) -> CheckpointReport | None:
    """The report of a folder that holds a head; None for a plain backbone.

    Pickles are looked into (weights only), as the library reads a backbone's too.

    Raises:
        CheckpointError: a tensor that may be a head has a name that no format has.
    """
    report = inspect(folder, allow_pickle=True)
    if report.head is not None or report.native:
        return report
    unknown = [name for name in candidates_for_head(report.tensors) if name.endswith(("head.weight", "score.weight"))]
    if unknown:
        raise CheckpointError(
            f"{folder}: '{unknown[0]}' looks like a head and would be lost; keep it with ranker convert --head-prefix "
            f"{unknown[0].removesuffix('.weight')}, or start a new one with model.init_head=true"
        )
    return None


def _check_kind(config: RunConfig, loaded: PreTrainedModel, name: str) -> None:
    """Compare what the recipe trains with what the checkpoint is.

    Raises:
        ConfigError: naming the setting.
    """
    model = config.model
    facts = native.facts(loaded)
    labels = tuple(facts["labels"])
    stored: dict[str, tuple[Any, Any]] = {"type": (facts["type"], model.type)}
    if isinstance(model, PairwiseConfig):
        stored["num_labels"] = (len(labels), model.num_labels)
    elif isinstance(model, PointwiseConfig):
        output = getattr(loaded.layout, "output", "scalar")
        stored["output"] = (output, config.output)
        pooling = loaded.config.ranker["pooling"] if facts["type"] == "pointwise" else "last_token"
        if model.pooling != "auto" and pooling != "last_token":
            stored["pooling"] = (pooling, model.pooling)
        if output == "aspects" and {*model.aspects} != {*labels}:
            stored["aspects"] = (labels, model.aspects)
    for setting, (value, wanted) in stored.items():
        if value != wanted:
            cause = "training.loss and model.aspects give" if setting == "output" else f"model.{setting} is"
            raise ConfigError(
                f"model.name_or_path '{name}' is a trained model with {setting} '{value}', but {cause} '{wanted}'; "
                "change it, or start a new head with model.init_head=true"
            )
    if config.output == "aspects" and isinstance(model, PointwiseConfig) and labels != model.aspects:
        raise ConfigError(
            f"model.name_or_path '{name}' has its aspects in the order {', '.join(labels)}, and labels are read in "
            "alphabetical order; start a new head with model.init_head=true"
        )


def _new_head(model: PreTrainedModel) -> None:
    """Draw the head anew where the backbone's folder had one of the same name, which the library has read."""
    std = float(getattr(model.config, "initializer_range", 0.02))
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and not {*NEW_HEADS}.isdisjoint(name.split(".")):
            nn.init.normal_(module.weight, std=std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
