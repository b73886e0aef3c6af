"""The figures of one model on labelled rows, typed; JSON begins at ``ModelReport.to_dict``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ranker.evaluation.robustness import EditEffect
from ranker.evaluation.statistics.agreement import Agreement
from ranker.evaluation.statistics.best_of_n import BestOfN
from ranker.evaluation.statistics.calibration import Temperature
from ranker.evaluation.statistics.length import LengthBias
from ranker.evaluation.statistics.regression import Regression
from ranker.metrics import Estimate, Share

SCHEMA_VERSION: Final = 2
"""Of the JSON object that ``ModelReport.to_dict`` gives and of ``metrics.json``."""


@dataclass(frozen=True, slots=True)
class LabelSwap:
    """A check that labels do not leak by position: candidates in reversed order under unchanged labels.

    Attributes:
        accuracy: accuracy on the reversed candidates.
        expected: one minus the accuracy in the original order; a model that reads answers and not positions has it.
        n: number of comparisons.
    """

    accuracy: float
    expected: float
    n: int


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Comparisons of similar probability.

    Attributes:
        predicted: mean probability, by the model, that the answer is better.
        observed: share of the comparisons in which it is preferred.
        n: number of comparisons, each in both directions.
    """

    predicted: float
    observed: float
    n: int


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """Whether the model's probabilities are right.

    Attributes:
        error: expected calibration error over ``bins``.
        bins: bins of equal mass, by increasing probability.
        temperature: the temperature that fits best; None where all comparisons are of one prompt.
    """

    error: Estimate
    bins: tuple[CalibrationBin, ...]
    temperature: Temperature | None


@dataclass(frozen=True, slots=True)
class Baseline:
    """What simple baselines (length, a bag of words) reach on the same comparisons.

    Attributes:
        accuracy: its pairwise accuracy.
        log_loss: its log-loss in nats; None where its scores are not log-odds.
        reason: why it could not be fitted; empty where it was.
    """

    accuracy: Share
    log_loss: float | None = None
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Accuracy and interval, and ``log_loss`` or ``reason`` where there is one."""
        loss = {} if self.log_loss is None else {"log_loss": self.log_loss}
        return asdict(self.accuracy) | loss | ({"reason": self.reason} if self.reason else {})


@dataclass(frozen=True, slots=True, repr=False)
class ModelReport:
    """The figures of one model. Losses are in nats, margins in logits; intervals are over prompts.

    Attributes:
        groups: rows.
        comparisons: labelled pairs of candidates.
        prompts: different prompts with comparisons.
        accuracy: share of the decided comparisons whose winner is right; a predicted tie counts half.
        ties: decided comparisons with a logit of exactly zero.
        log_loss: mean log-loss of the comparisons.
        brier: mean squared error of the probabilities.
        mean_margin: mean lead of the preferred answer.
        failed: rows that could not be scored.
        labelled_ties: comparisons whose label is a tie.
        truncated: candidates that were cut.
        prompts_truncated: rows whose prompt was cut.
        order_flips: share of pairs whose winner changes with the order of the candidates.
        label_swap: a check that labels do not leak by position.
        cyclic_triads: share of triples of answers of which each beats the next one.
        calibration: whether the probabilities are right.
        length_bias: how scores and decisions depend on length.
        agreement: agreement with the labelled order of lists; None without rows of three or more candidates.
        aspects: the same by name of the label column.
        best_of_n: the label of the answer that the model chooses among n, by increasing n.
        subsets: accuracy by subset of the data.
        kinds: accuracy by the kinds of the candidates, ``"better > other"``.
        baselines: what rules without understanding reach: ``random``, ``longer_wins`` and ``bag_of_words``.
        robustness: the effect of edits by their names; empty where it was not measured.
        regression: scores against labels, of rows that hold no comparison; None where there are comparisons.
        answers: answers of all rows.
        answers_read: how many of them were read for the scores; each distinct one once, where its score does not depend
            on the others.

    Example:
        >>> report = ranker.evaluate("model.onnx", "data/rows.jsonl")["model.onnx"]
        >>> report.accuracy.low < report.accuracy.value < report.accuracy.high
        True
        >>> print(report.baselines["longer_wins"].accuracy)
        0... [0..., 0...] (n=...)
    """

    groups: int
    comparisons: int
    prompts: int
    accuracy: Share
    ties: int
    log_loss: Estimate
    brier: Estimate
    mean_margin: Estimate
    failed: int
    labelled_ties: int
    truncated: int
    prompts_truncated: int
    order_flips: Share
    label_swap: LabelSwap
    cyclic_triads: Share
    calibration: CalibrationReport
    length_bias: LengthBias
    agreement: Agreement | None
    aspects: Mapping[str, Agreement]
    best_of_n: tuple[BestOfN, ...]
    subsets: Mapping[str, Share]
    kinds: Mapping[str, Share]
    baselines: Mapping[str, Baseline]
    robustness: Mapping[str, EditEffect] = field(default_factory=dict)
    regression: Regression | None = None
    answers: int = 0
    answers_read: int = 0

    def __repr__(self) -> str:
        if self.regression is not None:
            return f"ModelReport(spearman='{self.regression.spearman}', rmse='{self.regression.rmse}')"
        return f"ModelReport(accuracy='{self.accuracy}', comparisons={self.comparisons}, prompts={self.prompts})"

    def main_figure(self) -> str:
        """The figure that says most, with its name: the accuracy, or where nothing is compared the correlation."""
        if self.regression is not None:
            return f"Spearman {self.regression.spearman}, RMSE {self.regression.rmse}"
        return f"accuracy {self.accuracy}"

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``metrics.json``; ``robustness`` and ``regression`` are left out where they are empty."""
        values: dict[str, Any] = {"schema_version": SCHEMA_VERSION} | asdict(self)
        values["calibration"]["bins"] = list(values["calibration"]["bins"])
        values["best_of_n"] = list(values["best_of_n"])
        values["baselines"] = {name: baseline.to_dict() for name, baseline in self.baselines.items()}
        for name in ("robustness", "regression"):
            if not values[name]:
                del values[name]
        return values
