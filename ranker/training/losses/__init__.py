"""The losses: pure functions of scores and labels, and one small object per loss that applies it to a batch."""

from __future__ import annotations

from typing import Any, Final

from ranker.errors import ConfigError
from ranker.training.losses import listwise, pairwise, pointwise, tokens
from ranker.training.losses.listwise import ListLoss
from ranker.training.losses.loss import Batch, Loss
from ranker.training.losses.pairwise import ComparisonLoss
from ranker.training.losses.pointwise import AnswerLoss

LOSSES: Final[dict[str, type[Loss]]] = {
    "bradley_terry": pairwise.BradleyTerry,
    "log_exp": pairwise.LogExp,
    "answer_token": pairwise.AnswerToken,
    "token_pairwise": tokens.TokenPairwise,
    "list_net": listwise.ListNet,
    "list_mle": listwise.ListMLE,
    "rank_net": listwise.RankNet,
    "cross_entropy": pointwise.CrossEntropy,
    "binary_cross_entropy": pointwise.BinaryCrossEntropy,
    "mse": pointwise.MSE,
    "rmse": pointwise.RMSE,
    "huber": pointwise.Huber,
}
"""The losses by name, as ``training.loss`` names them."""

__all__ = ["LOSSES", "AnswerLoss", "Batch", "ComparisonLoss", "ListLoss", "Loss", "build"]


def build(config: Any) -> Loss:
    """The loss of a ``LossConfig``.

    Raises:
        ConfigError: a custom loss, whose object only the caller of ``ranker.train`` has.
    """
    if config.type not in LOSSES:
        raise ConfigError(f"training.loss '{config.type}': pass the object, ranker.train(..., loss={config.name}())")
    return LOSSES[config.type](config)
