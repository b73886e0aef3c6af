"""Rewards of one RLHF batch: completions of equal prompts are a group, in whatever form the trainer passes them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ranker.batch_scorer import BatchScorer, plain
from ranker.data.formats import parse_group
from ranker.errors import ConfigError, DataError
from ranker.ranking.aggregation import Comparisons, bradley_terry, win_rate
from ranker.records import Group, Prompt
from ranker.scoring.protocol import GroupScores

Mode = Literal["score", "win_rate", "bradley_terry"]
Floats = NDArray[np.float64]

logger = logging.getLogger(__name__)

REASONS: Final = 3
"""Most reasons that are logged per batch, the most frequent first."""

MODES: Final = get_args(Mode)
RULES: Final = {"win_rate": win_rate, "bradley_terry": bradley_terry}


class GroupRewards:
    """Rewards from a ranker or reward model, NaN where a completion could not be scored.

    ``score`` gives raw logits, standardised where the model is calibrated; of a pairwise model they are relative to the
    prompt's other completions, which is what group-normalising trainers use. ``win_rate`` and ``bradley_terry``
    aggregate a completion's comparisons with the other completions of its prompt.

    Args:
        model: what ``BatchScorer`` takes, or one.
        mode: one of the three.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an unknown mode.
    """

    def __init__(self, model: Any, *, mode: Mode = "score", **options: Any) -> None:
        if mode not in MODES:
            raise ConfigError(f"expected mode {', '.join(MODES)}, got '{mode}'")
        self.scorer = model if isinstance(model, BatchScorer) else BatchScorer(model, **options)
        self.mode = mode

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Floats:
        """One reward per completion, in order.

        Args:
            prompts: the prompt of each completion, as text or chat messages; equal prompts need not be adjacent.
            completions: texts, or chat messages that end with the assistant's.

        Completions that could not be scored are counted and logged with the reasons.

        Raises:
            ConfigError: not one prompt per completion, or a single completion of a prompt where rewards are relative to
                the prompt's other completions (a pairwise model, or another mode than ``score``).
        """
        if len(prompts) != len(completions):
            raise ConfigError(f"expected one prompt per completion ({len(completions)}), got {len(prompts)}")
        rewards = np.full(len(prompts), np.nan)
        members: dict[Prompt, list[tuple[int, str]]] = {}
        reasons: dict[int, str] = {}
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            try:
                group = parse_group({"prompt": plain(prompt), "candidates": [completion]}, f"completion {number}")
            except DataError as error:
                reasons[number] = f"{error.field}: {error.reason}"
                continue  # its reward stays NaN, which trainers leave out
            members.setdefault(group.prompt, []).append((number, group.candidates[0]))
        if self.relative:
            self._leave_out_lone(members, reasons)
        groups = [Group(prompt, tuple(text for _, text in answers)) for prompt, answers in members.items()]
        for answers, result in zip(members.values(), self.scorer.score(groups), strict=True):
            numbers = [number for number, _ in answers]
            rewards[numbers] = self._rewards(result)
            if result.error is not None:
                reasons |= dict.fromkeys(numbers, result.error)
        self._report(reasons, len(rewards))
        return rewards

    @property
    def relative(self) -> bool:
        """Whether a reward only compares a completion with the other completions of its prompt."""
        return self.mode != "score" or self.scorer.scorer.info.scores_are_relative

    @staticmethod
    def _report(reasons: dict[int, str], total: int) -> None:
        """Count the completions without a reward and log the most frequent reasons."""
        if reasons:
            counted = Counter(reasons.values()).most_common(REASONS)
            first = "; ".join(f"{count} x {reason}" for reason, count in counted)
            logger.warning("%d of %d completions have no reward: %s", len(reasons), total, first)

    @staticmethod
    def _leave_out_lone(members: dict[Prompt, list[tuple[int, str]]], reasons: dict[int, str]) -> None:
        """Leave out completions whose other completions are invalid; raise when the trainer sends no groups at all."""
        lone = [prompt for prompt, answers in members.items() if len(answers) == 1]
        if lone and not reasons:
            number = members[lone[0]][0][0]
            raise ConfigError(
                f"completion {number}: expected at least two completions of its prompt, got one; use a pointwise model "
                "(recipe encoder-bradley-terry or decoder-bradley-terry) in mode 'score', or send whole groups"
            )
        for prompt in lone:
            reasons[members.pop(prompt)[0][0]] = "no other completion of its prompt could be read"

    def _rewards(self, result: GroupScores) -> Floats:
        if self.mode == "score":
            calibration = self.scorer.scorer.info.calibration
            return (result.scores.astype(np.float64) - calibration.mean) / calibration.std
        return self._aggregated(result)

    def _aggregated(self, result: GroupScores) -> Floats:
        """Scores aggregated from all pairs, whose logits are differences of scores."""
        n = len(result.scores)
        if result.error is not None:
            return np.full(n, np.nan)
        seen = Comparisons(n)
        first, second = np.triu_indices(n, 1)
        pairs = list(zip(first.tolist(), second.tolist(), strict=True))
        seen.add(pairs, result.scores[first] - result.scores[second])
        return RULES[self.mode](seen).scores
