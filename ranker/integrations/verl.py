"""verl's reward functions: one sample at a time, or a batch (``reward_model.reward_manager=batch``).

    # my_reward.py, custom_reward_function.path=my_reward.py, custom_reward_function.name=compute_score
    from ranker.integrations.verl import batch_function

    compute_score = batch_function("model.onnx", prompt="question")

verl does not pass the prompt; it is read from ``extra_info``, where the dataset has put it.
Source: verl/workers/reward_manager of verl 0.6.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ranker.errors import DataError
from ranker.integrations.rewards import GroupRewards, Mode


def batch_function(
    model: Any, *, prompt: str = "prompt", mode: Mode = "score", **options: Any
) -> Callable[..., list[float]]:
    """``compute_score(data_sources, solution_strs, ground_truths, extra_infos)`` -> rewards, for the batch manager."""
    rewards = GroupRewards(model, mode=mode, **options)

    def compute_score(
        data_sources: Sequence[Any],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        **kwargs: Any,
    ) -> list[float]:
        prompts = [_prompt(info, prompt, number) for number, info in enumerate(extra_infos)]
        return [float(value) for value in rewards(prompts, list(solution_strs))]

    return compute_score


def function(model: Any, *, prompt: str = "prompt", **options: Any) -> Callable[..., float]:
    """``compute_score(data_source, solution_str, ground_truth, extra_info)`` -> reward, for the naive manager."""
    rewards = GroupRewards(model, **options)

    def compute_score(
        data_source: Any,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> float:
        return float(rewards([_prompt(extra_info, prompt, 0)], [solution_str])[0])

    return compute_score


def _prompt(info: Mapping[str, Any] | None, name: str, number: int) -> Any:
    if not info or name not in info:
        raise DataError(
            f"sample {number}", f"extra_info.{name}", "expected the prompt; verl does not pass it, so the dataset must"
        )
    return info[name]
