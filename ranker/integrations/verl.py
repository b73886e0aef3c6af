"""verl's reward functions: one sample at a time, or a batch (``reward_model.reward_manager=batch``).

    # my_reward.py, custom_reward_function.path=my_reward.py, custom_reward_function.name=compute_score
    from ranker.integrations.verl import batch_function

    compute_score = batch_function("model.onnx", prompt="question")

verl does not pass the prompt; it is read from ``extra_info``, where the dataset has put it.
Source: verl/workers/reward_manager of verl 0.6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.errors import DataError
from ranker.integrations.rewards import GroupRewards, Mode

logger = logging.getLogger(__name__)


def batch_function(
    model: Any, *, prompt: str = "prompt", mode: Mode = "score", **options: Any
) -> Callable[..., list[float]]:
    """``compute_score(data_sources, solution_strs, ground_truths, extra_infos)`` -> rewards, for the batch manager.

    A sample that could not be scored has reward 0, and a warning says how many there were.
    """
    rewards = GroupRewards(model, mode=mode, **options)

    def compute_score(
        data_sources: Sequence[Any],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        **kwargs: Any,
    ) -> list[float]:
        prompts = [_prompt(info, prompt, number) for number, info in enumerate(extra_infos)]
        return _whole(rewards(prompts, list(solution_strs)))

    return compute_score


def function(model: Any, *, prompt: str = "prompt", **options: Any) -> Callable[..., float]:
    """``compute_score(data_source, solution_str, ground_truth, extra_info)`` -> reward, for the naive manager.

    It sees one sample at a time, so the model must be a pointwise one; others raise ``ConfigError``.
    """
    rewards = GroupRewards(model, **options)

    def compute_score(
        data_source: Any,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> float:
        return _whole(rewards([_prompt(extra_info, prompt, 0)], [solution_str]))[0]

    return compute_score


def _whole(rewards: NDArray[np.float64]) -> list[float]:
    """Rewards, 0 for completions that failed: verl has no way to leave a sample out, and NaN would end the training."""
    failed = np.isnan(rewards)
    if failed.any():
        logger.warning("%d of %d samples could not be scored; their reward is 0", failed.sum(), len(failed))
    return [float(value) for value in np.where(failed, 0.0, rewards)]


def _prompt(info: Mapping[str, Any] | None, name: str, number: int) -> Any:
    if not info or name not in info:
        raise DataError(
            f"sample {number}", f"extra_info.{name}", "expected the prompt; verl does not pass it, so the dataset must"
        )
    return info[name]
