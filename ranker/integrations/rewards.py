"""Rewards of one RLHF batch; the completions of equal prompts are a group."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ranker.data.formats import parse_group
from ranker.data.read_row import ReadRow, UnusedColumns
from ranker.data.tables import plain
from ranker.errors import ConfigError, DataError
from ranker.integrations.arguments import load_batch_scorer
from ranker.loading import Ranker
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

    In mode ``score`` a reward is the raw logit, standardised where the model is calibrated; where scores are relative,
    it compares the completion with the prompt's other completions, which is what group-normalising trainers use. In
    mode ``win_rate`` it is the share of the prompt's other completions that it beats, minus the group's mean. In mode
    ``bradley_terry`` it is a strength in logits, fitted to all pairs of the prompt's completions.

    Args:
        model: what ``ranker.load`` reads, loaded with the first completions; or a loaded model.
        mode: ``score``, ``win_rate`` or ``bradley_terry``.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an unknown mode, or an option that ``ranker.load`` does not have.

    Example:
        >>> GroupRewards("model.onnx")(["Say hi", "Say hi"], ["Hi!", "No."])
        array([7.25416946, 6.67177916])
    """

    def __init__(self, model: str | Path | Ranker, *, mode: Mode = "score", **options: Any) -> None:
        if mode not in MODES:
            raise ConfigError(f"expected mode {', '.join(MODES)}, got '{mode}'")
        self.scorer = load_batch_scorer("GroupRewards", model, options)
        self.mode = mode
        self._unused = UnusedColumns(("prompt", "candidates"))

    def note_unused(self, call: str, columns: Mapping[str, Any]) -> None:
        """Say once which columns of text a trainer hands over beside prompts and completions, which are not read.

        Args:
            call: what the trainer calls, for the line.
            columns: one value or list of values each.
        """
        self._unused.note(f"{call}:", ReadRow({name: plain(value) for name, value in columns.items()}))
        self._unused.say()

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> Floats:
        """Rewards (completions,), in order. Completions without a reward are counted and logged with the reasons.

        Args:
            prompts: the prompt of each completion, as text or chat messages; equal prompts need not be adjacent.
            completions: texts, or chat messages that end with the assistant's.

        Raises:
            ConfigError: not one prompt per completion, or a single completion of a prompt where rewards are relative to
                the prompt's other completions (``scores_are_relative``, or another mode than ``score``).
        """
        if len(prompts) != len(completions):
            raise ConfigError(f"expected one prompt per completion ({len(completions)}), got {len(prompts)}")
        rewards = np.full(len(prompts), np.nan)
        members: dict[Prompt, list[tuple[int, str]]] = {}
        reasons: dict[int, str] = {}
        for number, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
            try:
                row = {"prompt": plain(prompt), "candidates": [plain(completion)]}
                group = parse_group(row, f"completion:{number}", unused=self._unused)
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
        self._unused.say()
        return rewards

    @property
    def relative(self) -> bool:
        """Whether a reward only compares a completion with the other completions of its prompt."""
        return self.mode != "score" or self.scorer.scorer.info.scores_are_relative

    @staticmethod
    def _report(reasons: dict[int, str], total: int) -> None:
        """Count the completions without a reward and log the most frequent reasons."""
        if reasons:
            frequent = Counter(reasons.values()).most_common(REASONS)
            summary = "; ".join(f"{count} x {reason}" for reason, count in frequent)
            logger.warning("%d of %d completions have no reward: %s", len(reasons), total, summary)

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
        comparisons = Comparisons(n)
        first, second = np.triu_indices(n, 1)
        pairs = list(zip(first.tolist(), second.tolist(), strict=True))
        comparisons.add(pairs, result.scores[first] - result.scores[second])
        return RULES[self.mode](comparisons).scores
