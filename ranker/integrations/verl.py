"""verl: reward functions for one sample at a time, or for a batch (``reward_model.reward_manager=batch``).

    # my_reward.py, custom_reward_function.path=my_reward.py, custom_reward_function.name=compute_score
    from ranker.integrations.verl import batch_reward_function

    compute_score = batch_reward_function("model.onnx", columns={"prompt": "question"})

verl does not pass the prompt. It is read from ``extra_info``, where the dataset must hold it.
Source: verl/workers/reward_manager of verl 0.6.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranker.data.read_row import Columns
from ranker.errors import DataError
from ranker.integrations.arguments import prompt_column, refuse
from ranker.integrations.rewards import GroupRewards, Mode
from ranker.loading import Ranker

logger = logging.getLogger(__name__)


def batch_reward_function(
    model: str | Path | Ranker, *, columns: Columns | None = None, mode: Mode = "score", **options: Any
) -> Callable[..., list[float]]:
    """``compute_score(data_sources, solution_strs, ground_truths, extra_infos)`` -> rewards, for the batch manager.

    A sample that could not be scored has reward 0, and a warning says how many there were. ``data_sources`` and
    ``ground_truths`` are not read. Arguments of ``custom_reward_function.reward_kwargs`` are refused.

    Args:
        model: as in ``GroupRewards``.
        columns: ``{"prompt": NAME}``, the field of ``extra_info`` with the prompt; default ``prompt``.
        mode: as in ``GroupRewards``.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: as in ``GroupRewards``, or a column for anything but the prompt.

    Example:
        >>> compute_score = batch_reward_function("model.onnx", columns={"prompt": "question"})
        >>> compute_score(["set"] * 2, ["Hi!", "No."], [None] * 2, [{"question": "Say hi"}] * 2)
        [7.254169464111328, 6.671779155731201]
    """
    rewards = GroupRewards(model, mode=mode, **options)
    field = prompt_column("batch_reward_function", columns) or "prompt"

    def compute_score(
        data_sources: Sequence[Any],
        solution_strs: Sequence[str],
        ground_truths: Sequence[Any],
        extra_infos: Sequence[Mapping[str, Any] | None],
        **kwargs: Any,
    ) -> list[float]:
        refuse("verl's compute_score", kwargs)
        prompts = [_prompt(info, field, number) for number, info in enumerate(extra_infos)]
        rewards.note_unused("extra_info", _others(extra_infos[0] if len(extra_infos) else None, field))
        return _zero_where_failed(rewards(prompts, list(solution_strs)))

    return compute_score


def reward_function(
    model: str | Path | Ranker, *, columns: Columns | None = None, mode: Mode = "score", **options: Any
) -> Callable[..., float]:
    """``compute_score(data_source, solution_str, ground_truth, extra_info)`` -> reward, for the naive manager.

    It sees one sample at a time, so it needs a pointwise model in mode ``score``; with another one, the call raises
    ``ConfigError``. Arguments and errors as in ``batch_reward_function``.

    Example:
        >>> compute_score = reward_function("pointwise.onnx", columns={"prompt": "question"})
        >>> compute_score("set", "Hi!", None, {"question": "Say hi"})
    """
    rewards = GroupRewards(model, mode=mode, **options)
    field = prompt_column("reward_function", columns) or "prompt"

    def compute_score(
        data_source: Any,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> float:
        refuse("verl's compute_score", kwargs)
        prompt = _prompt(extra_info, field, 0)
        rewards.note_unused("extra_info", _others(extra_info, field))
        return _zero_where_failed(rewards([prompt], [solution_str]))[0]

    return compute_score


def _zero_where_failed(rewards: NDArray[np.float64]) -> list[float]:
    """Rewards, 0 for completions that failed: verl has no way to leave a sample out, and NaN would end the training."""
    failed = np.isnan(rewards)
    if failed.any():
        logger.warning("%d of %d samples could not be scored; their reward is 0", failed.sum(), len(failed))
    return [float(value) for value in np.where(failed, 0.0, rewards)]


def _others(info: Mapping[str, Any] | None, field: str) -> dict[str, Any]:
    """What a sample's extra information holds besides the prompt."""
    return {name: value for name, value in (info or {}).items() if name != field}


def _prompt(info: Mapping[str, Any] | None, name: str, number: int) -> Any:
    if not info or name not in info:
        raise DataError(
            f"sample {number}", f"extra_info.{name}", "expected the prompt; verl does not pass it, so the dataset must"
        )
    return info[name]
