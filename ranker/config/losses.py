"""Settings of the losses: one class per family, told apart by ``type``; a loss has no settings of another."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ranker.config.section import Section

ComparisonLossName = Literal["bradley_terry", "log_exp"]
ListLossName = Literal["list_net", "list_mle", "rank_net"]
RegressionLossName = Literal["mse", "rmse", "binary_cross_entropy"]


class PairLossConfig(Section):
    """What losses of pairs share."""

    center_rewards_coefficient: float = Field(
        0.0, ge=0, description="weight of (r_left + r_right)^2; TRL recommends 0.01"
    )
    order_consistency: float = Field(
        0.0, ge=0, description="ordered_pair, steamshp: weight of the penalty on scores that change with the order"
    )


class ComparisonLossConfig(PairLossConfig):
    """``-log sigmoid`` of the difference of two scores, under either of its names."""

    type: ComparisonLossName


class AnswerTokenLossConfig(PairLossConfig):
    """SteamSHP's cross-entropy of the word A or B."""

    type: Literal["answer_token"]


class TokenPairwiseLossConfig(Section):
    """Bradley-Terry at every token from the first difference on; of decoders."""

    type: Literal["token_pairwise"]


class ListLossConfig(Section):
    """A loss of ranked lists."""

    type: ListLossName


class AnswerLossConfig(Section):
    """What losses of single answers share: rows need labels, and no comparison."""


class RegressionLossConfig(AnswerLossConfig):
    """A loss of single answers against their labels."""

    type: RegressionLossName


class HuberLossConfig(AnswerLossConfig):
    """Squared error that becomes linear."""

    type: Literal["huber"]
    delta: float = Field(1.0, gt=0, description="the error from which the loss is linear")


class CrossEntropyLossConfig(AnswerLossConfig):
    """Two classes, reject and accept; the model has two outputs and its score is their log-odds."""

    type: Literal["cross_entropy"]
    accept_threshold: float = Field(0.5, description="an answer with at least this score is accepted")
    class_weights: tuple[float, float] = Field((1.0, 1.0), description="factors of reject and of accept")
    label_smoothing_factor: float = Field(0.0, ge=0, lt=1, description="share of the target spread over both classes")


class CustomLossConfig(Section):
    """A ``Loss`` object that was given to ``ranker.train(loss=...)``; recorded by its name."""

    type: Literal["custom"]
    name: str = Field(description="the class of the object")


def _from_name(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


LossConfig = Annotated[
    Annotated[
        ComparisonLossConfig
        | AnswerTokenLossConfig
        | TokenPairwiseLossConfig
        | ListLossConfig
        | RegressionLossConfig
        | HuberLossConfig
        | CrossEntropyLossConfig
        | CustomLossConfig,
        Field(discriminator="type"),
    ],
    BeforeValidator(_from_name),
]
"""A loss by its name (``mse``), or with its settings (``{type: huber, delta: 2}``)."""
