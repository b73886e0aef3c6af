"""OpenRLHF's ``RewardModel``: a bias-free head of any name on the last token of the mask.

Its configuration names no labels, and names the head (``value_head_prefix``) only at the end of a run. ``mean`` and
``std`` are kept beside the raw scores, which are not normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from ranker.checkpoints.foreign.classifiers import classifier, without_bias
from ranker.checkpoints.foreign.reading import Facts, Reading, Source, plain_config, refused, write
from ranker.checkpoints.weights import Names
from ranker.models.backbones import DECODERS
from ranker.models.reward import RewardReading

HEAD: Final = "score"
"""The head's name since OpenRLHF 0.3.9; ``value_head`` before."""


def read(folder: Path, values: dict[str, Any], facts: Facts) -> Reading:
    """A reward model with or without ``num_labels``, its head found under whatever name it has."""
    return classifier(folder, values, facts)


def write_model(source: Source, folder: Path) -> list[str]:
    """The folder as OpenRLHF's ``get_llm_for_sequence_regression(path, "reward")`` reads it.

    Raises:
        CheckpointError: not a decoder with one output.
    """
    config = source.config
    if not isinstance(source.model, RewardReading) or config.model_type not in DECODERS or config.num_labels != 1:
        raise refused(source, "openrlhf", "decoders with one output")
    normalisation = config.ranker.get("normalisation") or {}
    values = plain_config(source, "RewardModel") | normalisation
    for name in ("id2label", "label2id", "num_labels", "problem_type"):
        values.pop(name, None)
    values |= {"value_head_prefix": HEAD, "normalize_reward": bool(normalisation)}
    source, notes = without_bias(source)
    write(source, folder, Names({}), values)
    return notes
