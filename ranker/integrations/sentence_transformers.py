"""sentence-transformers' ``CrossEncoder`` calls with any model of this package, for existing retrieval code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ranker.errors import ConfigError, ScoringError
from ranker.extras import require
from ranker.integrations.arguments import refuse
from ranker.loading import Ranker, load
from ranker.ranking.tournament import ranked
from ranker.records import Group
from ranker.scoring.protocol import LONE, Floats, has_lone


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

    def predict(
        self,
        sentences: Sequence[Sequence[str]] | Sequence[str],
        *,
        activation_fn: Callable[[Any], Any] | None = None,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        **unsupported: Any,
    ) -> Any:
        """Scores (pairs,) of (query, document) pairs; one score of a single pair.

        Args:
            sentences: pairs, or one pair.
            activation_fn: applied to the logits as a torch tensor (pairs,), for example ``torch.nn.Sigmoid()``. The
                library's own default is a sigmoid; here the logits stay as they are.
            convert_to_numpy: an fp32 array; False gives a list of torch scalars.
            convert_to_tensor: an fp32 torch tensor instead.
            batch_size: accepted and ignored: batches are cut by tokens, and scores do not depend on them.
            show_progress_bar: accepted and ignored.
            unsupported: the library's other arguments; values other than their defaults are refused.

        Raises:
            ConfigError: an argument that is not supported, or a lone document of a query with a model that compares.
            ScoringError: a pair could not be scored.
        """
        refuse("CrossEncoder.predict", unsupported)
        single = bool(sentences) and isinstance(sentences[0], str)
        pairs: Any = [sentences] if single else sentences
        members: dict[str, list[int]] = {}
        for number, (query, _) in enumerate(pairs):
            members.setdefault(query, []).append(number)
        groups = [Group(query, tuple(pairs[number][1] for number in numbers)) for query, numbers in members.items()]
        scorer = self.ranker.scorer
        if has_lone(scorer, groups):
            raise ConfigError(f"{LONE} (predict reads the documents of equal queries together)")
        scores = np.empty(len(pairs), np.float32)
        for numbers, result in zip(members.values(), ranked(scorer, groups), strict=True):
            if result.error is not None:
                raise ScoringError(f"pair {numbers[0]}: {result.error}")
            scores[numbers] = result.scores
        converted = _converted(scores, activation_fn, convert_to_numpy, convert_to_tensor)
        return converted[0] if single else converted

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        *,
        activation_fn: Callable[[Any], Any] | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        **unsupported: Any,
    ) -> list[dict[str, Any]]:
        """``[{corpus_id, score[, text]}]``, best first; the ``top_k`` best of them. Arguments as in ``predict``.

        Raises:
            ConfigError: an argument that is not supported, or one document with a model that compares.
            ScoringError: the documents could not be scored.
        """
        refuse("CrossEncoder.rank", unsupported)
        if len(documents) == 1 and self.ranker.scorer.info.scores_are_relative:
            raise ConfigError(LONE)
        ranking = self.ranker.rank(query, documents)
        scores = _converted(ranking.scores, activation_fn, True, False)
        hits = []
        for number in ranking.order[:top_k].tolist():
            row: dict[str, Any] = {"corpus_id": number, "score": float(scores[number])}
            hits.append(row | ({"text": documents[number]} if return_documents else {}))
        return hits


def _converted(
    scores: Floats, activation_fn: Callable[[Any], Any] | None, convert_to_numpy: bool, convert_to_tensor: bool
) -> Any:
    """The logits after the activation, as an array, a tensor or a list."""
    if activation_fn is None and convert_to_numpy and not convert_to_tensor:
        return scores
    tensor = require("torch").from_numpy(np.ascontiguousarray(scores))
    if activation_fn is not None:
        tensor = activation_fn(tensor)
    if convert_to_tensor:
        return tensor
    return tensor.numpy() if convert_to_numpy else list(tensor)
