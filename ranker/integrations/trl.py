"""TRL: a reward function for GRPO and RLOO, and the pairwise judge that TRL removed in 1.1.0.

    from ranker.integrations.trl import reward_function

    GRPOTrainer(model=..., reward_funcs=[reward_function("model.onnx")], train_dataset=...).train()

| TRL's ``PairRMJudge`` | here | what differs |
|---|---|---|
| ``judge`` | ``PairRMJudge.judge`` | -1 where a pair could not be compared, as in TRL's other judges |
| ``return_scores`` | the probability that the first is better | the same: its scores are the sum of both orders |

Source: trl/experimental/judges of TRL 1.0.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, Literal, overload

import numpy as np

from ranker.errors import ConfigError
from ranker.integrations.arguments import load_ranker
from ranker.integrations.rewards import GroupRewards, Mode
from ranker.loading import Ranker
from ranker.metrics import sigmoid
from ranker.records import Group

PASSED: Final = ("completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""What TRL passes besides the columns of its dataset."""


class PairRMJudge:
    """Says which of two completions is better.

    Args:
        model: a loaded model, or what ``ranker.load`` reads.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an option that ``ranker.load`` does not have.

    Example:
        >>> PairRMJudge("model.onnx").judge(["Say hi"], [["Hi!", "No."]])
        [0]
    """

    def __init__(self, model: str | Path | Ranker, **options: Any) -> None:
        self.ranker = load_ranker("PairRMJudge", model, options)

    @overload
    def judge(
        self,
        prompts: Sequence[str],
        completions: Sequence[Sequence[str]],
        shuffle_order: bool = True,
        return_scores: Literal[False] = False,
        temperature: float = 1.0,
    ) -> list[int]: ...
    @overload
    def judge(
        self,
        prompts: Sequence[str],
        completions: Sequence[Sequence[str]],
        shuffle_order: bool = True,
        *,
        return_scores: Literal[True],
        temperature: float = 1.0,
    ) -> list[float]: ...
    def judge(
        self,
        prompts: Sequence[str],
        completions: Sequence[Sequence[str]],
        shuffle_order: bool = True,
        return_scores: bool = False,
        temperature: float = 1.0,
    ) -> list[int] | list[float]:
        """0 or 1 per prompt, the better completion's index; -1 where they could not be compared.

        Args:
            prompts: one text each.
            completions: two per prompt.
            shuffle_order: whether the two are read in an order drawn with a fixed seed; order-free models need none.
            return_scores: whether the probability that the first is better is returned instead; NaN for pairs that
                failed.
            temperature: divides the sum of both orders' logits before the sigmoid.

        Raises:
            ConfigError: not two completions per prompt.
        """
        if len(prompts) != len(completions) or any(len(pair) != 2 for pair in completions):
            raise ConfigError("expected exactly two completions of every prompt")
        draw = random.Random(0)
        swapped = [shuffle_order and draw.random() < 0.5 for _ in prompts]
        pairs = [
            Group(prompt, (pair[1], pair[0]) if swap else (pair[0], pair[1]))
            for prompt, pair, swap in zip(prompts, completions, swapped, strict=True)
        ]
        logits = self.ranker.scorer.compare(pairs).astype(np.float64) * np.where(swapped, -1, 1)
        if return_scores:
            with np.errstate(invalid="ignore"):
                return [float(p) for p in sigmoid(2 * logits / temperature)]
        return [-1 if np.isnan(logit) else int(logit < 0) for logit in logits]


def reward_function(
    model: str | Path | Ranker, *, mode: Mode = "score", name: str = "ranker", **options: Any
) -> Callable[..., list[float | None]]:
    """A reward function for ``GRPOTrainer`` and ``RLOOTrainer``: ``reward_funcs=[reward_function("model.onnx")]``.

    It is called with ``prompts`` and ``completions``, texts or messages, and returns one reward per completion; None
    where a completion could not be scored, which TRL leaves out. Completions of equal prompts are a group. A completion
    of several messages, as of an episode with tools, is scored as a whole. The dataset's other columns are not read;
    those of text are named once.

    Args:
        model: as in ``GroupRewards``.
        mode: as in ``GroupRewards``.
        name: TRL logs the reward under this name.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: as in ``GroupRewards``.

    Example:
        >>> reward = reward_function("model.onnx", name="helpful")
        >>> reward(prompts=["Say hi", "Say hi"], completions=["Hi!", "No."])
        [7.254169464111328, 6.671779155731201]
    """
    rewards = GroupRewards(model, mode=mode, **options)

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
        rewards.note_unused(name, {key: value for key, value in kwargs.items() if key not in PASSED})
        return [None if np.isnan(value) else float(value) for value in rewards(prompts, completions)]

    reward.__name__ = name
    return reward
