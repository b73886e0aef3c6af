"""The losses by name, as ``training.loss`` names them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from torch import Tensor

from ranker.training.losses import listwise, pairwise, pointwise

PAIRWISE: Final[dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]]] = {
    "bradley_terry": pairwise.bradley_terry,
    "log_exp": pairwise.log_exp,
}
"""(logits, targets, margin) -> (comparisons,)."""

LISTWISE: Final[dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "list_net": listwise.list_net,
    "list_mle": listwise.list_mle,
    "rank_net": listwise.rank_net,
}
"""(scores, labels, present) -> (groups,)."""

TOKENWISE: Final[dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {"token_pairwise": pairwise.token_pairwise}
"""(values of the better, values of the other, span) -> (pairs,)."""

ANSWERS: Final[dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]]] = {"answer_token": pairwise.answer_token}
"""(log-probabilities of the left, of the right, targets) -> (pairs,)."""

POINTWISE: Final[dict[str, Callable[..., Tensor]]] = {
    "cross_entropy": pointwise.cross_entropy,
    "binary_cross_entropy": pointwise.binary_cross_entropy,
    "mse": pointwise.mse,
    "rmse": pointwise.rmse,
    "huber": pointwise.huber,
}
"""(outputs, labels, options by name) -> (answers,), of ``rmse`` one number for the batch."""
