"""OpenRLHF: a file with a reward function, for ``--reward.remote_url my_reward.py``.

    # my_reward.py
    from ranker.integrations.openrlhf import reward_function

    reward_func = reward_function("model.onnx")

OpenRLHF passes queries as rendered text, prompt and response in one. It calls the function with one sample or several.
Source: openrlhf/utils/agent.py of OpenRLHF 0.11.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.extras import require
from ranker.integrations.arguments import refuse
from ranker.integrations.rewards import GroupRewards, Mode
from ranker.loading import Ranker
from ranker.metrics import sigmoid
from ranker.records import Rendered

logger = logging.getLogger(__name__)

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

BEGINNINGS: Final = ("<s>", "<|begin_of_text|>", "<bos>", "<|endoftext|>", "[CLS]")
"""Beginnings of text that tokenizers put before a prompt."""


def reward_function(
    model: str | Path | Ranker, *, mode: Mode = "score", **options: Any
) -> Callable[..., dict[str, Any]]:
    """A ``reward_func(queries, prompts, labels)`` for OpenRLHF.

    It returns fp32 tensors (queries,): ``rewards``, those of ``GroupRewards``, and ``scores``, their logistic in [0,
    1], by which OpenRLHF filters. Queries are rendered texts: a decoder reads them as they are. A response that could
    not be scored has reward 0 and score 0, and is counted in ``extra_logs``. OpenRLHF 0.11 passes one response per
    call, so it needs a pointwise model in mode ``score``. ``labels`` are not read. Any other argument of the call is
    refused.

    Args:
        model: as in ``GroupRewards``.
        mode: as in ``GroupRewards``.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: as in ``GroupRewards``; the function raises it for a lone response where rewards are relative.

    Example:
        >>> reward_func = reward_function("model.onnx")
        >>> reward_func(["Say hi: Hi!</s>"], ["Say hi: "], [None])["rewards"]
    """
    rewards = GroupRewards(model, mode=mode, **options)

    def reward_func(
        queries: Sequence[str], prompts: Sequence[str], labels: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        refuse("OpenRLHF's reward_func", kwargs)
        torch = require("torch")
        if rewards.scorer.scorer.info.renders_conversations:
            responses: dict[int, str] = {number: Rendered(query) for number, query in enumerate(queries)}
        else:
            responses = _responses(queries, prompts)
        raw_rewards = np.full(len(queries), np.nan)
        if responses:
            raw_rewards[list(responses)] = rewards([prompts[number] for number in responses], list(responses.values()))
        failed = np.isnan(raw_rewards)
        values = np.where(failed, 0.0, raw_rewards)
        scores = np.where(failed, 0.0, sigmoid(values))
        return {
            "rewards": torch.tensor(values, dtype=torch.float32),
            "scores": torch.tensor(scores, dtype=torch.float32),
            "extra_logs": {"ranker_failed": torch.tensor(failed.astype(np.float32))},
        }

    return reward_func


def _responses(queries: Sequence[str], prompts: Sequence[str]) -> dict[int, str]:
    """The responses by query number, without queries that do not begin with their prompt; those are logged."""
    responses: dict[int, str] = {}
    for number, (query, prompt) in enumerate(zip(queries, prompts, strict=True)):
        try:
            responses[number] = response(query, prompt)
        except ValueError as error:
            logger.warning("query %d has no reward: %s", number, error)
    return responses


def response(query: str, prompt: str) -> str:
    """The part of a query after its prompt, without the ``ENDINGS`` and spaces at its end.

    A beginning of text before the prompt, which a tokenizer may have put there, is left out.

    Raises:
        ValueError: the query does not begin with its prompt.

    Example:
        >>> response("Say hi: Hi!</s>", "Say hi: ")
        'Hi!'
    """
    begin = next((token for token in ("", *BEGINNINGS) if query.startswith(token + prompt)), None)
    if begin is None:
        raise ValueError(
            f"expected the query to begin with its prompt '{prompt:.60}', got '{query:.60}'; send the prompt as it is "
            "in the query, or none"
        )
    start = len(begin) + len(prompt)
    end = len(query)
    while end > start:
        if query[end - 1].isspace():
            end -= 1
        elif ending := next((token for token in ENDINGS if query.endswith(token, start, end)), ""):
            end -= len(ending)
        else:
            break
    return query[start:end]
