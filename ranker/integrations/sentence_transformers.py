"""sentence-transformers' ``CrossEncoder`` calls over any model of ours, for retrieval code that was written for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ScoringError
from ranker.loading import Ranker, load
from ranker.ranking.tournament import ranked
from ranker.records import Group


class CrossEncoder:
    """Scores (query, document) pairs.

    Scores are raw logits, as ``CrossEncoder`` gives under an identity activation. A pairwise model's scores have
    meaning within one query only: ``rank`` and ``predict`` read the documents of equal queries together.

    Args:
        model: a loaded model, or what ``ranker.load`` reads.
        options: those of ``ranker.load``.
    """

    def __init__(self, model: Ranker | str | Path, **options: Any) -> None:
        self.ranker = model if isinstance(model, Ranker) else load(model, **options)
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *args, **kwargs: None)
        """The library's evaluators write to it; no card is kept."""

    def predict(self, sentences: Sequence[Sequence[str]] | Sequence[str], **_: Any) -> NDArray[np.float32] | np.float32:
        """Scores (pairs,) of (query, document) pairs; one score of a single pair. Other arguments are not needed.

        Raises:
            ScoringError: a pair could not be scored.
        """
        single = bool(sentences) and isinstance(sentences[0], str)
        pairs: Any = [sentences] if single else sentences
        members: dict[str, list[int]] = {}
        for number, (query, _) in enumerate(pairs):
            members.setdefault(query, []).append(number)
        groups = [Group(query, tuple(pairs[number][1] for number in own)) for query, own in members.items()]
        scores = np.empty(len(pairs), np.float32)
        for own, result in zip(members.values(), ranked(self.ranker.scorer, groups), strict=True):
            if result.error is not None:
                raise ScoringError(f"pair {own[0]}: {result.error}")
            scores[own] = result.scores
        return scores[0] if single else scores

    def rank(
        self, query: str, documents: Sequence[str], top_k: int | None = None, return_documents: bool = False, **_: Any
    ) -> list[dict[str, Any]]:
        """``[{corpus_id, score[, text]}]``, best first; the ``top_k`` best of them.

        Raises:
            ScoringError: the documents could not be scored.
        """
        ranking = self.ranker.rank(query, documents)
        found = []
        for number in ranking.order[:top_k].tolist():
            row: dict[str, Any] = {"corpus_id": number, "score": float(ranking.scores[number])}
            found.append(row | ({"text": documents[number]} if return_documents else {}))
        return found
