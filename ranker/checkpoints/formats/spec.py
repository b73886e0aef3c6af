"""How a checkpoint is read (``LoadSpec``), what is written (``Source``), and what all formats share; needs torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel

from ranker.checkpoints.detection import bare
from ranker.checkpoints.report import CheckpointReport
from ranker.checkpoints.weights import KeyMap
from ranker.config import Pooling
from ranker.errors import CheckpointError
from ranker.extras import require
from ranker.layouts import Output
from ranker.layouts.conversation import Conversation
from ranker.layouts.layout import TokenTypes
from ranker.layouts.pointwise import Pointwise
from ranker.models import backbones
from ranker.models.backbones import DECODERS
from ranker.models.pointwise import RewardReading, text_layout
from ranker.text.conversations import ChatText
from ranker.text.formats import portable
from ranker.text.tokenizer import TextTokenizer

MAX_LENGTH: Final = 2048
"""Tokens of a row where the checkpoint sets no limit that fits."""

UNLIMITED: Final = 1_000_000
"""A ``model_max_length`` of this size or more is the library's way of writing "no limit"."""

PROMPT_RESERVE: Final = 64

TEMPLATE: Final = "chat_template.jinja"
"""Where transformers keeps a chat template."""


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """How a checkpoint is read: our configuration, the class that takes it, the names and the files of its tensors.

    ``notes`` says what is read differently from what a user may expect. ``answers`` makes the head of a language model:
    the ids of two words, whose difference is the score, or of one.
    """

    config: PretrainedConfig
    cls: type[PreTrainedModel]
    names: KeyMap = field(default_factory=lambda: KeyMap({}))
    extra: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    answers: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A head as the files have it: its module, its rows, their names, whether its bias is read, mean and std."""

    name: str
    outputs: int
    labels: tuple[str, ...] = ()
    has_bias: bool = False
    normalisation: Mapping[str, float] | None = None

    @classmethod
    def of(cls, report: CheckpointReport, *, with_bias: bool = False) -> StoredHead:
        """The head of a report; its bias is read where ``with_bias`` and the files have one.

        Raises:
            CheckpointError: the checkpoint has no head.
        """
        if report.head is None:
            raise CheckpointError(f"{report.path}: no head was found; see: ranker inspect {report.path}")
        name = report.head.name
        bias = with_bias and f"{name}.bias" in map(bare, report.tensors)
        return cls(name, report.head.shape[0], report.labels, bias, report.normalisation)


@dataclass(frozen=True, slots=True)
class Source:
    """A loaded model on its way into another format.

    ``tensors`` are the model's, by our names, each in the precision in which the source stored it.
    """

    model: PreTrainedModel
    tokenizer: TextTokenizer
    tensors: Mapping[str, Tensor]

    @property
    def config(self) -> PretrainedConfig:
        """The model's configuration."""
        return self.model.config


def text_of(
    folder: Path, config: PretrainedConfig, output: Output, pooling: Pooling, without_template: str = "trl"
) -> Pointwise | Conversation:
    """The layout of a pointwise checkpoint, from its tokenizer: pair template, chat template or plain text."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    limits = row_limits(tokenizer, config)
    layout = text_layout(tokenizer, config, output=output, pooling=pooling, without_template=without_template, **limits)
    if isinstance(layout, Conversation):
        return layout
    types = "zero" if trained_by_trl(folder) else token_types(tokenizer)
    side = "left" if tokenizer.truncation_side == "left" else "right"
    return layout.model_copy(update={"truncation": "longest_first", "truncation_side": side, "token_types": types})


def row_limits(tokenizer: Any, config: PretrainedConfig, most: int | None = None) -> dict[str, int]:
    """``max_length`` and ``prompt_reserve`` of a checkpoint, which gets a padding id where it has none.

    Args:
        tokenizer: the checkpoint's.
        config: the backbone's.
        most: tokens of a row, where the checkpoint says so outside of its tokenizer.
    """
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id  # the mask decides what is read, never this id
    known = int(tokenizer.model_max_length) if most is None else most
    limit = min(known if known < UNLIMITED else MAX_LENGTH, positions(config))
    return {"max_length": limit, "prompt_reserve": min(PROMPT_RESERVE, limit // 2)}


def conversation(
    tokenizer: Any, config: PretrainedConfig, chat: ChatText, *, output: Output = "scalar", most: int | None = None
) -> Conversation:
    """The layout of a checkpoint whose text is already known."""
    limits = row_limits(tokenizer, config, most)
    return Conversation(output=output, pad_id=tokenizer.pad_token_id, chat=chat, **limits)


def token_types(tokenizer: Any) -> TokenTypes:
    """The token types that a tokenizer gives to a pair; a model that gets none reads zeros."""
    return "pair" if any(tokenizer("a", "b").get("token_type_ids", ())) else "zero"


def trained_by_trl(folder: Path) -> bool:
    """Whether TRL's RewardTrainer wrote the folder: its collator passes ids and mask, so token types are zero."""
    card = folder / "README.md"
    return card.is_file() and "- reward-trainer" in card.read_text(encoding="utf-8", errors="replace")


def check_reranker(folder: Path, config: PretrainedConfig) -> None:
    """Refuse a decoder classifier that ranks documents, whose files do not say how a pair becomes its text.

    Read by a chat model's template, which knows no documents, its scores would be near random.

    Raises:
        CheckpointError: naming the sentence of its card.
    """
    text = getattr(config, "ranker", {}).get("text", {})
    card = folder / "README.md"
    if "chat" not in text or text["chat"].get("pair_roles") is not None or not card.is_file():
        return
    front = card.read_text(encoding="utf-8", errors="replace").removeprefix("---").partition("\n---")[0]
    sentence = next((line.strip() for line in front.splitlines() if line.strip() in RANKS), None)
    if sentence is not None:
        raise CheckpointError(
            f"{folder}: its card says '{sentence}': it ranks documents, and its chat template knows no query and "
            "document. Name the text that it was trained on: text={'format': 'qwen3-reranker'} (--text format=...), or "
            "{'format': 'chat'} if it reads conversations"
        )


RANKS: Final = ("pipeline_tag: text-ranking", "- text-ranking", "- reranker", "- cross-encoder")
"""Lines of a model card's header that rerankers have."""


def outputs(rows: int, names: Sequence[str]) -> tuple[Output, tuple[str, ...]]:
    """One output is a reward, two without names of their own reject and accept, others aspects.

    Raises:
        CheckpointError: two labels of which the first is the better one, whose log-odds would be turned around.
    """
    words = [name.lower() for name in names]
    if rows == 1:
        return "scalar", ("reward",)
    if rows == 2 and (not words or {*words} <= {"label_0", "label_1"} or (words[0] in WORSE or words[1] in BETTER)):
        return "accept_reject", ("reject", "accept")
    if rows == 2 and (words[0] in BETTER or words[1] in WORSE):
        raise CheckpointError(
            f"its labels are {list(names)}: the score is the log-odds of the second, which is the worse one here; "
            "exchange the rows of the head and the labels"
        )
    return "aspects", tuple(names) if len(names) == rows else tuple(f"aspect {i}" for i in range(rows))


WORSE: Final = {"reject", "rejected", "bad", "negative", "no", "worse", "0", "false", "not_relevant", "irrelevant"}
BETTER: Final = {"accept", "accepted", "chosen", "good", "positive", "yes", "better", "1", "true", "relevant"}
"""Names of the two classes of accept/reject models."""


def check_vocabulary(folder: Path, tokenizer: TextTokenizer, model: PreTrainedModel) -> None:
    """Refuse a tokenizer with more ids than the model has embeddings.

    Raises:
        CheckpointError: naming both numbers.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    if tokenizer.size > rows:
        raise CheckpointError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, the embeddings {rows} rows; take the tokenizer that "
            "was saved with these weights"
        )


def write(source: Source, folder: Path, names: KeyMap, config: Mapping[str, Any]) -> None:
    """Write tensors under a format's names, its ``config.json`` and the tokenizer.

    A decoder's tokenizer gets a chat template that renders what the model reads, whatever its producer's rules.
    """
    tensors = {names.stored_name(name): tensor.contiguous() for name, tensor in source.tensors.items()}
    require("huggingface_hub").save_torch_state_dict(tensors, folder, metadata={"format": "pt"})
    write_json(folder / "config.json", config)
    source.tokenizer.save(folder)
    settings = folder / "tokenizer_config.json"
    known = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    layout = source.model.layout
    if isinstance(layout, Conversation):
        known.pop("chat_template", None)
        (folder / TEMPLATE).write_text(portable(layout.chat, source.tokenizer), encoding="utf-8")
    write_json(settings, known | {"model_max_length": source.model.layout.max_length})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON as transformers does."""
    path.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def plain_config(source: Source, architecture: str) -> dict[str, Any]:
    """The library's configuration without our section, naming another class."""
    values: dict[str, Any] = source.config.to_dict()
    values.pop("ranker", None)
    kinds = {tensor.dtype for tensor in source.tensors.values()}
    kind = torch.float32 if len(kinds) != 1 else kinds.pop()
    return values | {"architectures": [architecture], "dtype": str(kind).removeprefix("torch.")}


def decoder_config(source: Source, target: str, architecture: str) -> dict[str, Any]:
    """``plain_config`` for formats that hold decoders with one output and name no labels.

    Raises:
        CheckpointError: another model.
    """
    config = source.config
    if not isinstance(source.model, RewardReading) or config.model_type not in DECODERS or config.num_labels != 1:
        raise refused(source, target, "decoders with one output")
    labels = {"id2label", "label2id", "num_labels", "problem_type"}
    return {name: value for name, value in plain_config(source, architecture).items() if name not in labels}


def refused(source: Source, target: str, needs: str) -> CheckpointError:
    """The error of a model that a format cannot hold."""
    kind = source.model.layout.layout if hasattr(source.model, "layout") else source.config.model_type
    return CheckpointError(
        f"a model of type '{kind}' cannot be written as '{target}', which holds {needs}. Only --to native holds every "
        "model; for other libraries train a pointwise recipe (encoder-bradley-terry, decoder-bradley-terry)"
    )


def positions(config: PretrainedConfig) -> int:
    """Positions that a row may have; purely relative ones have no limit."""
    if not getattr(config, "position_biased_input", True):
        return UNLIMITED
    return int(config.max_position_embeddings) - backbones.position_offset(config)
