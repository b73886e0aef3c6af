"""verl: ``compute_score`` of one sample, awaited (``async_reward_function``) or not (``reward_function``).

    # my_reward.py, reward.custom_reward_function.path=my_reward.py, reward.custom_reward_function.name=compute_score
    from ranker.integrations.verl import async_reward_function

    compute_score = async_reward_function("model.onnx", columns={"prompt": "question"}, rollouts=8)

verl's reward loop (its default since 0.7.1) awaits the function for every sample as soon as its response is there; the
managers ``naive`` and ``dapo`` were run with it. The ``batch`` manager of earlier versions takes
``batch_reward_function``. verl does not pass the prompt. The dataset must put it into ``extra_info``.
Sources: verl/trainer/ppo/reward.py and verl/experimental/reward_loop of verl 0.9; verl/workers/reward_manager of 0.6.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from ranker.client import Client
from ranker.data.read_row import Columns
from ranker.data.tables import plain
from ranker.errors import ConfigError, DataError, ScoringError
from ranker.integrations.arguments import prompt_column, refuse
from ranker.integrations.rewards import GroupRewards, Mode
from ranker.loading import Ranker

logger = logging.getLogger(__name__)


PATIENCE_S: Final = 240.0
"""Seconds that completions wait for the others of their prompt; verl's ``rate_limited`` manager waits 300."""

SERVER_S: Final = 600.0
"""Seconds that a server may take."""

ADDED: Final = ("num_turns", "rollout_reward_scores")
"""What verl adds to ``extra_info``."""


def async_reward_function(
    model: str | Path | Ranker,
    *,
    columns: Columns | None = None,
    mode: Mode = "score",
    rollouts: int = 1,
    key: str | None = None,
    patience_s: float = PATIENCE_S,
    **options: Any,
) -> Callable[..., Awaitable[float]]:
    """``await compute_score(data_source, solution_str, ground_truth, extra_info)`` -> reward, for verl's reward loop.

    Samples that wait while a batch is scored make up the next batch, so that many are scored together. A sample that
    could not be scored has reward 0 and a warning. ``data_source`` and ``ground_truth`` are not read.

    Args:
        model: as in ``GroupRewards``; or the address of ``ranker serve`` (``http://...``), which all of verl's reward
            workers share.
        columns: ``{"prompt": NAME}``, the field of ``extra_info`` with the prompt; default ``prompt``.
        mode: as in ``GroupRewards``; with an address only ``score``.
        rollouts: completions of a prompt (``actor_rollout_ref.rollout.n``) that are scored together. A model that
            compares answers needs it, and ``reward.num_workers=1``, so that all of them come to one process; its
            validation needs as many (``val_kwargs.n``), because a lone completion can be compared with nothing. Leave
            it at 1 for a model that scores one answer at a time.
        key: a key of the server.
        patience_s: seconds after which a group is scored without the completions that have not come.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: as in ``GroupRewards``, no completion of a prompt, or a column for anything but the prompt.

    Example:
        >>> compute_score = async_reward_function("model.onnx", columns={"prompt": "question"}, rollouts=2)
        >>> async def rewards():  # as verl calls it
        ...     samples = [("set", answer, None, {"question": "Say hi"}) for answer in ("Hi!", "No.")]
        ...     return await asyncio.gather(*(compute_score(*sample) for sample in samples))
        >>> asyncio.run(rewards())
        [7.254169464111328, 6.671779155731201]
    """
    if rollouts < 1:
        raise ConfigError(f"rollouts: expected at least one completion of a prompt, got {rollouts}")
    score: Score
    if isinstance(model, str) and model.startswith(("http://", "https://")):
        if mode != "score" or options:
            raise ConfigError("a server gives scores in its own way: leave out mode and the options of ranker.load")
        score = _FromServer(model, key)
    else:
        score = GroupRewards(model, mode=mode, **options)
    field = prompt_column("async_reward_function", columns) or "prompt"
    gatherings: WeakKeyDictionary[asyncio.AbstractEventLoop, _Gathering] = WeakKeyDictionary()

    async def compute_score(
        data_source: Any,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> float:
        refuse("verl's compute_score", kwargs)
        loop = asyncio.get_running_loop()
        gathering = gatherings.setdefault(loop, _Gathering(score, rollouts, patience_s))
        reward = await gathering.reward(_prompt(extra_info, field, 0), solution_str)
        return _zero_where_failed(np.array([reward]))[0]

    return compute_score


class Score(Protocol):
    """From prompts and completions to rewards (completions,), NaN where one could not be scored."""

    @property
    def relative(self) -> bool:
        """Whether a reward only compares a completion with the others of its prompt."""
        ...

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        """The rewards."""
        ...


class _FromServer:
    """Scores of a server, the completions of equal prompts together."""

    def __init__(self, url: str, key: str | None) -> None:
        self._client = Client(url, key=key, timeout=SERVER_S)
        self._relative: bool | None = None

    @property
    def relative(self) -> bool:
        """See ``Score``."""
        if self._relative is None:
            self._relative = bool(self._client.info()["scores_are_relative"])
        return self._relative

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any]) -> NDArray[np.float64]:
        """See ``Score``.

        Raises:
            ConfigError: a lone completion for a model that compares.
        """
        places: dict[str, list[int]] = {}
        for number, prompt in enumerate(prompts):
            places.setdefault(_key(prompt), []).append(number)
        if self.relative and min(map(len, places.values()), default=2) < 2:
            raise ConfigError(
                "the server's model compares answers to one prompt and got a single one; set rollouts, or serve a "
                "pointwise model"
            )
        groups = [[completions[n] for n in numbers] for numbers in places.values()]
        asked = [prompts[numbers[0]] for numbers in places.values()]
        rewards = np.full(len(prompts), np.nan)
        for numbers, scores in zip(
            places.values(), self._client.score_batch(asked, groups, return_exceptions=True), strict=True
        ):
            if isinstance(scores, ScoringError):
                logger.warning("%d completions could not be scored: %s", len(numbers), scores)
            else:
                rewards[numbers] = scores
        return rewards


class _Gathering:
    """Collects samples: those of a prompt until its group is whole, and whole groups until the model is free."""

    def __init__(self, score: Score, rollouts: int, patience_s: float) -> None:
        self._score, self._rollouts, self._patience_s = score, rollouts, patience_s
        self._groups: dict[str, _Waiting] = {}
        self._whole: list[list[_Sample]] = []
        self._scoring = False

    async def reward(self, prompt: Any, completion: Any) -> float:
        """The reward of a sample, when its batch is scored; a sample that is cancelled leaves its group."""
        loop = asyncio.get_running_loop()
        sample, name = _Sample(prompt, completion, loop.create_future()), _key(prompt)
        waiting = self._groups.get(name)
        if waiting is None:
            waiting = self._groups[name] = _Waiting([], loop.call_later(self._patience_s, self._release, name))
        waiting.samples.append(sample)
        if len(waiting.samples) >= self._rollouts:
            self._release(name)
        try:
            return await sample.reward
        finally:
            if self._groups.get(name) is waiting and sample in waiting.samples:
                waiting.samples.remove(sample)
                if not waiting.samples:
                    waiting.timer.cancel()
                    del self._groups[name]

    def _release(self, name: str) -> None:
        waiting = self._groups.pop(name)
        waiting.timer.cancel()
        if len(waiting.samples) < self._rollouts:
            logger.warning("%d of %d completions of a prompt came in time", len(waiting.samples), self._rollouts)
        self._whole.append(waiting.samples)
        if not self._scoring:
            self._scoring = True
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            await asyncio.sleep(0)  # samples that are ready at the same time come along
            while self._whole:
                groups, self._whole = self._whole, []
                await self._score_groups(groups)
        finally:
            self._scoring = False

    async def _score_groups(self, groups: Sequence[Sequence[_Sample]]) -> None:
        samples = [sample for group in groups for sample in group if not sample.reward.done()]
        late = {id(group[0]) for group in groups if len(group) == 1 and self._rollouts > 1}
        try:
            rewards = await asyncio.to_thread(self._rewards, samples, late)
        except Exception as error:  # it reaches every sample that waits for it
            for sample in samples:
                if not sample.reward.done():
                    sample.reward.set_exception(error)
            return
        for sample, reward in zip(samples, rewards.tolist(), strict=True):
            if not sample.reward.done():
                sample.reward.set_result(reward)

    def _rewards(self, samples: Sequence[_Sample], late: Collection[int]) -> NDArray[np.float64]:
        """Rewards; NaN for a completion that was left alone, where the model compares."""
        rewards = np.full(len(samples), np.nan)
        alone = (
            {n for n, sample in enumerate(samples) if id(sample) in late} if late and self._score.relative else set()
        )
        asked = [n for n in range(len(samples)) if n not in alone]
        if asked:
            rewards[asked] = self._score([samples[n].prompt for n in asked], [samples[n].completion for n in asked])
        return rewards


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """A completion that waits for its reward."""

    prompt: Any
    completion: Any
    reward: asyncio.Future[float]


@dataclass(frozen=True, slots=True)
class _Waiting:
    """The samples of a prompt that have come, and the timer that ends their wait."""

    samples: list[_Sample]
    timer: asyncio.TimerHandle


def _key(prompt: Any) -> str:
    """What tells prompts apart, texts or messages."""
    return prompt if isinstance(prompt, str) else json.dumps(plain(prompt), sort_keys=True, default=str)


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
    """What a sample's extra information holds besides the prompt and what verl adds."""
    return {name: value for name, value in (info or {}).items() if name != field and name not in ADDED}


def _prompt(info: Mapping[str, Any] | None, name: str, number: int) -> Any:
    if not info or name not in info:
        raise DataError(
            f"sample {number}", f"extra_info.{name}", "expected the prompt; verl does not pass it, so the dataset must"
        )
    return info[name]
