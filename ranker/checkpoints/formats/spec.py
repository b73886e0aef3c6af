"""Results of the formats' readers, and functions that readers and writers share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel

from ranker.checkpoints.weights import KeyMap
from ranker.config import Pooling
from ranker.errors import CheckpointError
from ranker.extras import require
from ranker.layouts import Output
from ranker.layouts.pointwise import Pointwise
from ranker.models import backbones
from ranker.models.backbones import DECODERS
from ranker.models.pointwise import RewardReading, text_layout
from ranker.text.tokenizer import TextTokenizer

MAX_LENGTH: Final = 2048
"""Most tokens of a row, if the checkpoint sets no usable limit."""

UNLIMITED: Final = 1_000_000
"""transformers writes a ``model_max_length`` of this size or more for "no limit"."""

PROMPT_RESERVE: Final = 64

Facts = Mapping[str, Any]
"""The result of ``inspect``."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """How to read a checkpoint: the configuration and class of the model, the names of its tensors, and further files.

    ``notes`` name everything that is read differently from what a user may expect.
    """

    config: PretrainedConfig
    cls: type[PreTrainedModel]
    names: KeyMap = field(default_factory=lambda: KeyMap({}))
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


Reader = Callable[[Path, dict[str, Any], Facts], LoadSpec]
"""(folder, its config.json, facts) -> how to read it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A loaded model that is written in another format.

    ``tensors`` are the model's, by its names, each in the precision of the source.
    """

    model: PreTrainedModel
    tokenizer: TextTokenizer
    tensors: Mapping[str, Tensor]

    @property
    def config(self) -> PretrainedConfig:
        """The model's configuration."""
        return self.model.config


Writer = Callable[[Source, Path], list[str]]
"""(source, target folder) -> notes on what could not be kept."""


def text_of(folder: Path, config: PretrainedConfig, output: Output, pooling: Pooling) -> Pointwise:
    """The layout of a pointwise checkpoint, from its tokenizer: pair template, chat template or plain."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id  # the mask, not this id, decides which tokens are read
    known = int(tokenizer.model_max_length)
    limit = min(known if known < UNLIMITED else MAX_LENGTH, _positions(config))
    reserve = min(PROMPT_RESERVE, limit // 2)
    return text_layout(tokenizer, config, output=output, pooling=pooling, max_length=limit, prompt_reserve=reserve)


def outputs(rows: int, named: list[str]) -> tuple[Output, tuple[str, ...]]:
    """One output is a reward, two with default names are reject and accept, all others are aspects.

    Raises:
        CheckpointError: the first of two labels is the better one, so the sign of the log-odds would be wrong.
    """
    words = [name.lower() for name in named]
    if rows == 1:
        return "scalar", ("reward",)
    if rows == 2 and (not words or {*words} <= {"label_0", "label_1"} or (words[0] in WORSE or words[1] in BETTER)):
        return "accept_reject", ("reject", "accept")
    if rows == 2 and (words[0] in BETTER or words[1] in WORSE):
        raise CheckpointError(
            f"its labels are {named}: the score is the log-odds of the second, which is the worse one here; exchange "
            "the rows of the head and the labels"
        )
    return "aspects", tuple(named) if len(named) == rows else tuple(f"aspect {i}" for i in range(rows))


WORSE: Final = {"reject", "rejected", "bad", "negative", "no", "worse", "0", "false", "not_relevant", "irrelevant"}
BETTER: Final = {"accept", "accepted", "chosen", "good", "positive", "yes", "better", "1", "true", "relevant"}
"""Names of the two classes of accept/reject models."""


def check_vocabulary(folder: Path, tokenizer: TextTokenizer, model: PreTrainedModel) -> None:
    """Refuse a tokenizer with more ids than the model has embeddings.

    Raises:
        CheckpointError: the message has both numbers.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.size > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, the embeddings {rows} rows; take the tokenizer that "
            "was saved with these weights"
        )


def write(source: Source, folder: Path, names: KeyMap, config: Mapping[str, Any]) -> None:
    """Write tensors under a format's names, its ``config.json`` and the tokenizer."""
    tensors = {names.stored_name(name): tensor.contiguous() for name, tensor in source.tensors.items()}
    require("huggingface_hub").save_torch_state_dict(tensors, folder, metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    source.tokenizer.save(folder)
    settings = folder / "tokenizer_config.json"
    known = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    write_json(settings, known | {"model_max_length": source.model.layout.max_length})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON as transformers does."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def plain_config(source: Source, architecture: str) -> dict[str, Any]:
    """The configuration without this package's section and with another class."""
    values: dict[str, Any] = source.config.to_dict()
    values.pop("ranker", None)
    kinds = {tensor.dtype for tensor in source.tensors.values()}
    kind = torch.float32 if len(kinds) != 1 else kinds.pop()
    return values | {"architectures": [architecture], "dtype": str(kind).removeprefix("torch.")}


def decoder_config(source: Source, target: str, architecture: str) -> dict[str, Any]:
    """``plain_config`` for formats of decoders with one output and without labels.

    Raises:
        CheckpointError: a model of another kind.
    """
    config = source.config
    if not isinstance(source.model, RewardReading) or config.model_type not in DECODERS or config.num_labels != 1:
        raise refused(source, target, "decoders with one output")
    labels = {"id2label", "label2id", "num_labels", "problem_type"}
    return {name: value for name, value in plain_config(source, architecture).items() if name not in labels}


def refused(source: Source, target: str, needs: str) -> CheckpointError:
    """The error of a model that a format cannot hold."""
    what = source.config.model_type
    return CheckpointError(f"a {what} model cannot be written as '{target}', which holds {needs}; choose --to native")


def _positions(config: PretrainedConfig) -> int:
    """Most positions of a row; purely relative positions have no limit."""
    if not getattr(config, "position_biased_input", True):
        return UNLIMITED
    return int(config.max_position_embeddings) - backbones.position_offset(config)
