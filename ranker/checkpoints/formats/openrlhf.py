"""OpenRLHF's ``RewardModel``: a bias-free head of any name on the last token of the mask.

Its configuration has no labels, and has the head's name (``value_head_prefix``) only at the end of a run. ``mean`` and
``std`` are kept as facts; scores are not normalised.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from transformers import AutoTokenizer

from ranker.checkpoints.formats.classifiers import classifier, without_bias
from ranker.checkpoints.formats.spec import Facts, LoadSpec, Source, decoder_config, write
from ranker.checkpoints.weights import KeyMap
from ranker.errors import CheckpointError

HEAD: Final = "score"
"""The head's name since OpenRLHF 0.3.9; ``value_head`` before."""


def read(folder: Path, values: dict[str, Any], facts: Facts) -> LoadSpec:
    """A reward model with or without ``num_labels``, whatever the name of its head."""
    spec = classifier(folder, values, facts)
    text = spec.config.ranker["text"]
    text["suffix"] = ending(AutoTokenizer.from_pretrained(folder), text["suffix"])
    return spec


def ending(tokenizer: Any, suffix: Sequence[int]) -> list[int]:
    """The ids after an answer: the template's ending without line breaks, then a space and the end of text if missing.

    Source: OpenRLHF's ``RewardDataset``, which strips line breaks, appends the end and scores that token.
    """
    ids = list(suffix)
    while ids and ids[-1] != tokenizer.eos_token_id and not tokenizer.decode([ids[-1]]).strip("\n"):
        ids.pop()
    if ids[-1:] == [tokenizer.eos_token_id]:
        return ids
    return [*ids, *tokenizer.encode(" ", add_special_tokens=False), tokenizer.eos_token_id]


def write_model(source: Source, folder: Path) -> list[str]:
    """The folder as OpenRLHF's ``get_llm_for_sequence_regression(path, "reward")`` reads it.

    Raises:
        CheckpointError: not a decoder with one output, or one that does not read the end of text.
    """
    config = source.config
    values = decoder_config(source, "openrlhf", "RewardModel")
    ends = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    if not {*source.model.layout.suffix[-1:]} & {*ends}:
        raise CheckpointError(
            "this model does not read the end-of-text token, and OpenRLHF scores that token, so its scores would "
            "differ; choose --to hf"
        )
    normalisation = config.ranker.get("normalisation") or {}
    values |= {**normalisation, "value_head_prefix": HEAD, "normalize_reward": bool(normalisation)}
    source, notes = without_bias(source)
    write(source, folder, KeyMap({}), values)
    return notes
