"""Settings of adapters from strangers: what peft would import, build or search for without end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from torch import Tensor

from ranker.errors import CheckpointError

REFUSED: Final[Mapping[str, str]] = {
    "megatron_config": "it makes peft import the module that megatron_core names",
    "layer_replication": "it builds layers that the base does not have",
}
"""Settings that no reward model needs, and what they do."""

PATTERNS: Final = ("target_modules", "exclude_modules", "layers_pattern")
"""Settings that are regular expressions, or lists of names and expressions."""

PATTERNS_OF: Final = ("rank_pattern", "alpha_pattern")
"""Settings whose keys are regular expressions."""

LONGEST: Final = 2000
MOST_REPEATS: Final = 6
REPEATED_GROUP: Final = re.compile(r"\)[*+{]")
REPEATS: Final = re.compile(r"(?<!\\)[*+{]")


def check(path: Path, values: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Refuse settings that ask for what no adapter needs, before peft reads them.

    Args:
        path: the adapter's configuration, for messages.
        values: its settings.
        tensors: the adapter's tensors, which bound its rank.

    Raises:
        CheckpointError: naming the setting.
    """
    for name, what in REFUSED.items():
        if values.get(name):
            raise CheckpointError(f"{path}: expected no {name}, because {what}; remove it, or merge the adapter first")
    for name, pattern in _patterns(values):
        if len(pattern) > LONGEST or REPEATED_GROUP.search(pattern) or len(REPEATS.findall(pattern)) > MOST_REPEATS:
            raise CheckpointError(
                f"{path}: {name} '{pattern:.60}' can search without end; expected at most {MOST_REPEATS} "
                "repetitions and none of a group; list the names of the layers instead"
            )
    most = max((max(tensor.shape, default=1) for tensor in tensors.values()), default=1)
    for name, rank in _ranks(values):
        if not isinstance(rank, int) or isinstance(rank, bool) or not 0 < rank <= most:
            raise CheckpointError(
                f"{path}: {name} is {rank!r:.40}, expected a number of 1 to {most}, the largest size of the adapter's "
                "tensors; write the rank that it was trained with"
            )


def _patterns(values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name in PATTERNS:
        value = values.get(name)
        for pattern in value if isinstance(value, list) else [value]:
            if isinstance(pattern, str):
                yield name, pattern
    for name in PATTERNS_OF:
        value = values.get(name)
        yield from ((name, pattern) for pattern in (value if isinstance(value, dict) else ()))


def _ranks(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    if "r" in values:
        yield "r", values["r"]
    pattern = values.get("rank_pattern")
    yield from (
        (f"rank_pattern of {name:.40}", rank) for name, rank in (pattern if isinstance(pattern, dict) else {}).items()
    )
