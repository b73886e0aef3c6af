"""What fake scorers in tests say of themselves."""

from __future__ import annotations

from typing import Any

from ranker.scoring.protocol import ScorerInfo


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
