"""Fake scorers, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.runtime.onnx_scorer import GraphScorer
from ranker.scoring.protocol import Floats, GroupScores, ScorerInfo, failed, margins


def info_of(**changes: Any) -> ScorerInfo:
    """The facts of a pointwise scorer, with changes."""
    facts: dict[str, Any] = {
        "layout": "pointwise",
        "precision": "fp32",
        "device": "cpu",
        "max_length": 512,
        "scores_are_relative": False,
        "order_free": True,
    }
    return ScorerInfo(**facts | changes)


class LengthScorer:
    """The length of an answer is its score; answers that begin with ``bad`` fail. It records the groups it is given.

    Args:
        changes: of ``info``.
    """

    def __init__(self, **changes: Any) -> None:
        self.info = info_of(**changes)
        self.groups: list[Group] = []
        self.calls: list[int] = []

    def score(self, groups: Sequence[Group], *, preserve_order: bool = False) -> list[GroupScores]:
        """See ``Scorer.score``."""
        self.groups += groups
        self.calls.append(len(groups))
        return [self._result(group) for group in groups]

    def token_counts(self, group: Group) -> list[int]:
        """See ``Scorer.token_counts``; a character is a token."""
        return [len(candidate) for candidate in group.candidates]

    def compare(self, pairs: Sequence[Group]) -> Floats:
        """See ``Scorer.compare``."""
        return margins(pairs, self.score(pairs))

    def _result(self, group: Group) -> GroupScores:
        if any(candidate.startswith("bad") for candidate in group.candidates):
            return failed(group, "the model failed on this row: bad")
        lengths = np.array([len(candidate) for candidate in group.candidates], np.float32)
        return GroupScores(lengths, np.zeros(len(lengths), np.bool_))


def input_ids_of(scorer: GraphScorer | TorchScorer, group: Group) -> list[list[int]]:
    """The ids of every row that a scorer reads for a group."""
    return [row.ids.tolist() for row in scorer.pipeline.pack(scorer.pipeline.tokenize([group])[0]).rows]
