"""OpenRLHF's reward function file: ``--reward.remote_url my_reward.py``.

    # my_reward.py
    from ranker.integrations.openrlhf import reward_function

    reward_func = reward_function("model.onnx")

OpenRLHF gives queries as rendered text, prompt and response in one, and calls the function with one sample or several.
Source: openrlhf/utils/agent.py of OpenRLHF 0.11.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from ranker.extras import require
from ranker.integrations.rewards import GroupRewards, Mode
from ranker.metrics import sigmoid

ENDINGS: Final = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end|>",
    "</s>",
    "<eos>",
    "<end_of_turn>",
    "<pad>",
)
"""Tokens of chat templates and padding at the end of a response."""


def reward_function(model: Any, *, mode: Mode = "score", **options: Any) -> Callable[..., dict[str, Any]]:
    """A ``reward_func(queries, prompts, labels)`` for OpenRLHF.

    ``rewards`` are those of ``GroupRewards``; ``scores``, which OpenRLHF filters by, are their logistic in [0, 1]. A
    response that could not be scored has reward 0 and score 0, and is counted in ``extra_logs``. OpenRLHF 0.11 passes
    one response per call, which only a pointwise model in the mode ``score`` can score; anything else raises
    ``ConfigError``.
    """
    rewards = GroupRewards(model, mode=mode, **options)

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        torch = require("torch")
        raw = rewards(list(prompts), [response(q, p) for q, p in zip(queries, prompts, strict=True)])
        failed = np.isnan(raw)
        values = np.where(failed, 0.0, raw)
        scores = np.where(failed, 0.0, sigmoid(values))
        return {
            "rewards": torch.tensor(values, dtype=torch.float32),
            "scores": torch.tensor(scores, dtype=torch.float32),
            "extra_logs": {"ranker_failed": torch.tensor(failed.astype(np.float32))},
        }

    return reward_func


def response(query: str, prompt: str) -> str:
    """The part of a query after its prompt, without ``ENDINGS``."""
    start = len(prompt) if query.startswith(prompt) else 0
    end = len(query)
    while end > start:
        if query[end - 1].isspace():
            end -= 1
        elif ending := next((token for token in ENDINGS if query.endswith(token, start, end)), ""):
            end -= len(ending)
        else:
            break
    return query[start:end]
