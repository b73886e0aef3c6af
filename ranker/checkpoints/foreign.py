"""Reward models of other trainers, read as ours: a key table per format; outputs are counted in the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints.inspect import inspect
from ranker.config import Pooling
from ranker.errors import CheckpointError
from ranker.models import backbones
from ranker.models.reward import DECODERS, HEADS, PAD_TOKEN, reward_class, text_layout
from ranker.models.tokenizers import text_tokenizer
from ranker.text.layout import Output
from ranker.text.tokenizer import TextTokenizer

KEYS: Final[dict[str, Mapping[str, str]]] = {
    "HF sequence classification": {},
    "sentence-transformers CrossEncoder": {},
    "OpenRLHF": {"HEAD": "score"},
}
"""By format: from the beginning of a tensor's name to ours; HEAD stands for the head's name in the file."""

MAX_LENGTH: Final = 2048
"""Tokens of a row where the checkpoint sets no limit that fits."""

PROMPT_RESERVE: Final = 64


def adopt(folder: Path, values: dict[str, Any]) -> tuple[PretrainedConfig, type[PreTrainedModel], dict[str, str]]:
    """How a foreign checkpoint is read.

    A head of one row is a reward, of two rows reject and accept (the score is the log-odds), of more aspects. The
    number of outputs is the head's own: a configuration without ``num_labels`` means two to the library, and is
    corrected.

    Args:
        folder: the checkpoint.
        values: its ``config.json``.

    Returns:
        Our configuration, the class that reads it, and how names of tensors change.

    Raises:
        CheckpointError: a format that is not read, a head that is not there, or a backbone that is not supported.
    """
    facts = inspect(folder)
    damaged = [p for p in facts["problems"] if "head" in p["what"] and "no head" in p["what"]]
    if facts["format"] not in KEYS or damaged or facts["head"] is None:
        reason = "; ".join(f"{p['what']} ({p['repair']})" for p in damaged or facts["problems"][:1])
        raise CheckpointError(
            f"{folder}: format '{facts['format']}' is not read as a reward model{': ' if reason else ''}{reason}; "
            f"expected ours, or {', '.join(KEYS)}; see: ranker inspect {folder}"
        )
    family = str(values["model_type"])
    if family not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{folder}: backbone '{family}' is not known to transformers; see: ranker inspect {folder}"
        )
    config = CONFIG_MAPPING[family].from_dict(values)
    output, labels = _outputs(facts["outputs"], facts["labels"])
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    cls = reward_class(config)
    pooling: Pooling = "mean" if getattr(config, "classifier_pooling", None) == "mean" else "first_token"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token_id = tokenizer.eos_token_id  # the mask decides what is read, never this id
    limit = min(MAX_LENGTH, int(tokenizer.model_max_length), _positions(config))
    text = text_layout(
        tokenizer,
        config,
        output=output,
        pooling=pooling,
        max_length=limit,
        prompt_reserve=min(PROMPT_RESERVE, limit // 2),
    )
    config.ranker = {
        "text": text.model_dump(),
        "head": output,
        "pooling": pooling if family in HEADS else "last_token",
        "aspects": list(labels) if output == "aspects" else [],
    }
    renamed = {old.replace("HEAD", facts["head"]["name"]): new for old, new in KEYS[facts["format"]].items()}
    return config, cls, {old: new for old, new in renamed.items() if old != new}


def own_padding(model: Any, folder: Path) -> TextTokenizer | None:
    """Give a decoder reward model that pads with its end-of-text token a padding token of its own.

    Returns:
        The tokenizer with it; None where nothing had to change.
    """
    config = model.config
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ends = {tokenizer.eos_token_id, *_ids(config.eos_token_id)}
    if config.model_type not in DECODERS or config.pad_token_id not in (None, *ends):
        return None
    tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    model.resize_token_embeddings(max(config.vocab_size, len(tokenizer)))
    config.pad_token_id = tokenizer.pad_token_id
    config.ranker["text"]["pad_id"] = tokenizer.pad_token_id
    return text_tokenizer(tokenizer)


def _ids(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _outputs(rows: int, named: list[str]) -> tuple[Output, tuple[str, ...]]:
    if rows == 1:
        return "tasks", ("reward",)
    if rows == 2:
        return "classes", ("reject", "accept")
    return "aspects", tuple(named) if len(named) == rows else tuple(f"aspect {i}" for i in range(rows))


def _positions(config: PretrainedConfig) -> int:
    """Positions that a row may have; purely relative ones have no limit."""
    if not getattr(config, "position_biased_input", True):
        return MAX_LENGTH
    return int(config.max_position_embeddings) - backbones.position_offset(config)
