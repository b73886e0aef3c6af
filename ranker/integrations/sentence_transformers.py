"""sentence-transformers' ``CrossEncoder`` calls over any model of ours, for retrieval code that was written for it.

    from ranker.integrations.sentence_transformers import CrossEncoder

    model = CrossEncoder("model.onnx")
    model.rank("Say hi", ["Hi!", "No."], top_k=1)  # [{"corpus_id": 0, "score": 7.25}]

Source: sentence_transformers/cross_encoder/model.py of sentence-transformers 6.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ranker.errors import ConfigError, ScoringError
from ranker.extras import require
from ranker.integrations.arguments import batches, load_ranker, refuse
from ranker.loading import Ranker
from ranker.ranking.tournament import ranked
from ranker.records import Group
from ranker.scoring.protocol import LONE, Floats, has_lone


class CrossEncoder:
    """Scores (query, document) pairs.

    Scores are raw logits, as ``CrossEncoder`` gives under an identity activation. If the model's scores are relative,
    they have meaning within one query only: ``rank`` and ``predict`` read the documents of equal queries together.

    Args:
        model: a loaded model, or what ``ranker.load`` reads.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an option that ``ranker.load`` does not have.

    Example:
        >>> CrossEncoder("model.onnx").predict([("Say hi", "Hi!"), ("Say hi", "No.")])
        array([7.2541695, 6.671779 ], dtype=float32)
    """

    def __init__(self, model: str | Path | Ranker, **options: Any) -> None:
        self.ranker = load_ranker("CrossEncoder", model, options)
        self.model_card_data = SimpleNamespace(set_evaluation_metrics=lambda *args, **kwargs: None)
        """The library's evaluators write to it; no card is kept."""

    def predict(
        self,
        inputs: Sequence[Sequence[str]] | Sequence[str],
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
            inputs: pairs, or one pair.
            activation_fn: applied to the logits as a torch tensor (pairs, 1), for example ``torch.nn.Sigmoid()``. The
                library's own default is a sigmoid; here the logits stay as they are.
            convert_to_numpy: an fp32 array; False gives a list of torch scalars.
            convert_to_tensor: an fp32 torch tensor instead.
            batch_size: most pairs that the model gets at once, except that the documents of one query stay together.
                Default: all of them; the model cuts its batches by tokens. Scores do not depend on it.
            show_progress_bar: whether a bar is shown on standard error.
            unsupported: the library's other arguments; values other than their defaults are refused.

        Raises:
            ConfigError: an argument that is not supported, or one document of a query where scores are relative.
            ScoringError: a pair could not be scored.
        """
        refuse("CrossEncoder.predict", unsupported)
        single = len(inputs) > 0 and isinstance(inputs[0], str)
        pairs: Any = [inputs] if single else inputs
        members: dict[str, list[int]] = {}
        for number, (query, _) in enumerate(pairs):
            members.setdefault(query, []).append(number)
        numbers = list(members.values())
        groups = [Group(query, tuple(pairs[number][1] for number in places)) for query, places in members.items()]
        scorer = self.ranker.scorer
        if has_lone(scorer, groups):
            raise ConfigError(f"{LONE} (predict reads the documents of equal queries together)")
        logits = np.empty(len(pairs), np.float32)
        for part in batches(list(map(len, numbers)), batch_size, progress=bool(show_progress_bar)):
            for places, result in zip(numbers[part], ranked(scorer, groups[part]), strict=True):
                if result.error is not None:
                    raise ScoringError(f"pair {places[0]}: {result.error}")
                logits[places] = result.scores
        scores = _converted(logits, activation_fn, convert_to_numpy, convert_to_tensor)
        return scores[0] if single else scores

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
            ConfigError: an argument that is not supported, or one document where scores are relative.
            ScoringError: the documents could not be scored.
        """
        refuse("CrossEncoder.rank", unsupported)
        scores = self.predict(
            [(query, document) for document in documents],
            activation_fn=activation_fn,
            batch_size=batch_size,
            show_progress_bar=show_progress_bar,
        )
        hits = []
        for number in np.argsort(-scores, kind="stable")[:top_k].tolist():
            hit: dict[str, Any] = {"corpus_id": number, "score": float(scores[number])}
            hits.append(hit | ({"text": documents[number]} if return_documents else {}))
        return hits


def _converted(
    logits: Floats, activation_fn: Callable[[Any], Any] | None, convert_to_numpy: bool, convert_to_tensor: bool
) -> Any:
    """The logits (pairs,) after the activation, as an array, a tensor or a list of scalars."""
    if activation_fn is None and convert_to_numpy and not convert_to_tensor:
        return logits
    torch = require("torch")
    scores = torch.from_numpy(logits)
    if activation_fn is not None:
        with torch.no_grad():
            scores = activation_fn(scores.unsqueeze(-1))  # (pairs, 1), as the library passes a model of one output
        scores = scores.squeeze(-1) if scores.ndim > 1 else scores
    if convert_to_tensor:
        return scores
    return scores.float().cpu().numpy() if convert_to_numpy else list(scores)
