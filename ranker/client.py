"""A client of ``ranker serve``: the calls of a loaded model, answered by a server."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from ranker.errors import ConfigError, ScoringError, ServerError
from ranker.extras import require
from ranker.ranking.ranks import Ranking, rank_scores
from ranker.scoring.protocol import Floats

AGAIN: Final = (429, 503)
"""Statuses after which a request is sent again: the queue is full, the server restarts, or it was too busy in time."""

FIRST_WAIT_S: Final = 0.25
MOST_WAIT_S: Final = 20.0
"""The waits between tries of a server that names none: doubled from the first to the most, and shortened at random."""

ITEMS: Final = 64
BYTES: Final = 1 << 20
READINGS: Final = 16_384
"""Most prompts, bytes, and ordered pairs of answers of a request, half of what a server takes unless it is told
otherwise. The server merges requests into batches, so larger ones are no faster."""

TOGETHER: Final = 8
"""Requests of one awaited call that are sent at once."""


class _Calls:
    """What both clients share: the requests that a call makes, and what their answers say."""

    def __init__(self, url: str, key: str | None, timeout: float) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError(f"expected the address of a server, such as http://127.0.0.1:8000, got '{url:.80}'")
        httpx = require("httpx")
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ConfigError(f"'{url:.80}' is no address ({error})") from error
        if timeout <= 0:
            raise ConfigError(f"timeout: expected seconds above 0, got {timeout}")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self._headers = {"authorization": f"Bearer {key}"} if key else {}

    def _options(self) -> dict[str, Any]:
        """How the HTTP library is set up."""
        return {"base_url": self.url, "headers": self._headers, "timeout": self.timeout}

    @staticmethod
    def _bodies(prompts: Sequence[Any], candidates: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """The bodies of ``/v1/score``, of at most ``ITEMS`` prompts each."""
        if len(prompts) != len(candidates):
            raise ConfigError(f"expected a list of candidates per prompt ({len(prompts)}), got {len(candidates)}")
        items = [
            {"prompt": _plain(prompt), "candidates": [_plain(answer) for answer in _listed(answers)]}
            for prompt, answers in zip(prompts, candidates, strict=True)
        ]
        bodies: list[dict[str, Any]] = []
        room = readings = 0
        for item in items:
            size, pairs = len(json.dumps(item)), len(item["candidates"]) ** 2
            if not bodies or len(bodies[-1]["items"]) == ITEMS or size > room or pairs > readings:
                bodies.append({"items": [], "partial": True})
                room, readings = BYTES, READINGS
            bodies[-1]["items"].append(item)
            room, readings = room - size, readings - pairs
        return bodies

    @staticmethod
    def _scores(bodies: Sequence[dict[str, Any]], return_exceptions: bool) -> list[Any]:
        """The scores in the bodies of answers, with errors in their places where they are asked for.

        Raises:
            ScoringError: candidates that could not be scored; the message names the prompt by its number.
        """
        scores: list[Any] = []
        for result in (result for body in bodies for result in body["results"]):
            if result["error"] is None:
                scores.append(np.array(result["scores"], np.float32))
                continue
            error = ScoringError(f"prompt {len(scores)}: {result['error']}")
            if not return_exceptions:
                raise error
            scores.append(error)
        return scores

    def _wait(self, status: int, headers: Mapping[str, str], tries: int, ends: float) -> float | None:
        """Seconds to wait before the next try; None after the last one."""
        if status not in AGAIN:
            return None
        named = headers.get("retry-after", "")
        growing = min(MOST_WAIT_S, FIRST_WAIT_S * 2**tries) * random.uniform(0.5, 1.0)  # noqa: S311  no secret
        seconds = float(named) if named.isdecimal() else growing
        return seconds if time.monotonic() + seconds < ends else None

    def _unreachable(self, error: Exception) -> ServerError:
        reason = str(error) or type(error).__name__
        return ServerError(0, f"{self.url}: no answer within {self.timeout:g} s ({reason}); is the server running?")

    def _not_ready(self, seconds: float) -> ServerError:
        return ServerError(0, f"{self.url}: not ready after {seconds:g} s")

    def _value(self, answer: Any) -> Any:
        """The JSON of an answer.

        Raises:
            ServerError: the server refused the request.
        """
        if answer.status_code == 200:
            try:
                return answer.json()
            except ValueError as error:
                text = f"{self.url}: expected JSON, got '{answer.text[:60]}'; is it the address of ranker serve?"
                raise ServerError(200, text) from error
        try:
            detail = answer.json()["detail"]
        except (ValueError, KeyError, TypeError):
            detail = answer.text[:200] or "no reason was given"
        raise ServerError(answer.status_code, f"{self.url}: {answer.status_code}: {_explained(detail)}")


class Client(_Calls):
    """Scores with a model that ``ranker serve`` serves; calls are those of ``ranker.load(...)``.

    A request that the server refuses because it is busy (429) or restarts (503) is sent again when its
    ``Retry-After`` says, until ``timeout`` has passed. One client may be used by many threads.

    Args:
        url: the server's address.
        key: one of the server's keys, where it has keys.
        timeout: seconds until a request gives up, with all its tries; a call of many prompts sends several.

    Raises:
        ConfigError: no address, or no time.
        MissingExtraError: httpx is not installed.

    Example:
        >>> with ranker.Client("http://127.0.0.1:8000") as client:
        ...     client.rank("What is 2 + 2?", ["It is 5.", "It is 4."]).order.shape
        (2,)
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 60.0) -> None:
        super().__init__(url, key, timeout)
        self._http = require("httpx").Client(**self._options())

    def score(self, prompt: Any, candidates: Sequence[Any]) -> Floats:
        """Scores (candidates,) of the answers to a prompt, raw logits.

        Raises:
            ServerError: the server refused the request, or did not answer in time.
            ScoringError: the candidates could not be scored.
        """
        scores: Floats = self.score_batch([prompt], [candidates])[0]
        return scores

    def score_batch(
        self, prompts: Sequence[Any], candidates: Sequence[Sequence[Any]], *, return_exceptions: bool = False
    ) -> list[Any]:
        """Scores of the answers to each prompt, in order; errors as in ``score``.

        With ``return_exceptions`` a prompt whose candidates could not be scored has its ``ScoringError`` in its place,
        and the others their scores.
        """
        bodies = self._bodies(prompts, candidates)
        return self._scores([self._post("/v1/score", body) for body in bodies], return_exceptions)

    def rank(self, prompt: Any, candidates: Sequence[Any]) -> Ranking:
        """Order, ranks and scores of the answers to a prompt; errors as in ``score``."""
        return rank_scores(self.score(prompt, candidates))

    def rank_batch(self, prompts: Sequence[Any], candidates: Sequence[Sequence[Any]]) -> list[Ranking]:
        """The same for many prompts, in order; errors as in ``score``."""
        return [rank_scores(scores) for scores in self.score_batch(prompts, candidates)]

    def compare(self, prompt: Any, a: Any, b: Any, *, probability: bool = False) -> float:
        """Log-odds that ``a`` is better than ``b``, or the probability; errors as in ``score``."""
        body = {"prompt": _plain(prompt), "a": _plain(a), "b": _plain(b)}
        return float(self._post("/v1/compare", body)["probability" if probability else "logit"])

    def info(self) -> dict[str, Any]:
        """The served model, its limits and where it runs, as ``/info`` says it; errors as in ``score``."""
        info: dict[str, Any] = self._send("GET", "/info")
        return info

    def wait_until_ready(self, seconds: float = 300.0) -> None:
        """Return when the server accepts requests, for scripts that start one.

        Raises:
            ServerError: it did not within ``seconds``.
        """
        ends = time.monotonic() + seconds
        while not self._is_ready():
            if time.monotonic() > ends:
                raise self._not_ready(seconds)
            time.sleep(FIRST_WAIT_S)

    def close(self) -> None:
        """Close the connections; also the end of a ``with`` block."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _is_ready(self) -> bool:
        try:
            return bool(self._http.get("/readyz", timeout=5).status_code == 200)
        except require("httpx").TransportError:
            return False

    def _post(self, path: str, body: Any) -> Any:
        return self._send("POST", path, body)

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        ends = time.monotonic() + self.timeout
        tries = 0
        while True:
            try:
                answer = self._http.request(method, path, json=body, timeout=max(0.1, ends - time.monotonic()))
                wait = self._wait(answer.status_code, answer.headers, tries, ends)
            except require("httpx").TransportError as error:
                wait = self._wait(AGAIN[-1], {}, tries, ends)
                if wait is None:
                    raise self._unreachable(error) from error
            else:
                if wait is None:
                    return self._value(answer)
            time.sleep(wait)
            tries += 1


class AsyncClient(_Calls):
    """``Client`` for asyncio: the same calls, awaited. Many may run at once; the server merges them into batches.

    Example:
        >>> import asyncio
        >>> async def best():
        ...     async with ranker.AsyncClient("http://127.0.0.1:8000") as client:
        ...         return await client.rank("What is 2 + 2?", ["It is 5.", "It is 4."])
        >>> asyncio.run(best()).order.shape
        (2,)
    """

    def __init__(self, url: str, *, key: str | None = None, timeout: float = 60.0) -> None:
        super().__init__(url, key, timeout)
        self._http = require("httpx").AsyncClient(**self._options())

    async def score(self, prompt: Any, candidates: Sequence[Any]) -> Floats:
        """As ``Client.score``."""
        scores: Floats = (await self.score_batch([prompt], [candidates]))[0]
        return scores

    async def score_batch(
        self, prompts: Sequence[Any], candidates: Sequence[Sequence[Any]], *, return_exceptions: bool = False
    ) -> list[Any]:
        """As ``Client.score_batch``; ``TOGETHER`` requests are sent at once."""
        free = asyncio.Semaphore(TOGETHER)

        async def sent(body: Any) -> Any:
            async with free:
                return await self._send("POST", "/v1/score", body)

        tasks = [asyncio.ensure_future(sent(body)) for body in self._bodies(prompts, candidates)]
        try:
            answers = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # after an error the others are not needed
                task.cancel()
        return self._scores(answers, return_exceptions)

    async def rank(self, prompt: Any, candidates: Sequence[Any]) -> Ranking:
        """As ``Client.rank``."""
        return rank_scores(await self.score(prompt, candidates))

    async def rank_batch(self, prompts: Sequence[Any], candidates: Sequence[Sequence[Any]]) -> list[Ranking]:
        """As ``Client.rank_batch``."""
        return [rank_scores(scores) for scores in await self.score_batch(prompts, candidates)]

    async def compare(self, prompt: Any, a: Any, b: Any, *, probability: bool = False) -> float:
        """As ``Client.compare``."""
        body = {"prompt": _plain(prompt), "a": _plain(a), "b": _plain(b)}
        return float((await self._send("POST", "/v1/compare", body))["probability" if probability else "logit"])

    async def info(self) -> dict[str, Any]:
        """As ``Client.info``."""
        info: dict[str, Any] = await self._send("GET", "/info")
        return info

    async def wait_until_ready(self, seconds: float = 300.0) -> None:
        """As ``Client.wait_until_ready``."""
        ends = time.monotonic() + seconds
        while not await self._is_ready():
            if time.monotonic() > ends:
                raise self._not_ready(seconds)
            await asyncio.sleep(FIRST_WAIT_S)

    async def _is_ready(self) -> bool:
        try:
            return bool((await self._http.get("/readyz", timeout=5)).status_code == 200)
        except require("httpx").TransportError:
            return False

    async def close(self) -> None:
        """As ``Client.close``."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, method: str, path: str, body: Any = None) -> Any:
        ends = time.monotonic() + self.timeout
        tries = 0
        while True:
            try:
                answer = await self._http.request(method, path, json=body, timeout=max(0.1, ends - time.monotonic()))
                wait = self._wait(answer.status_code, answer.headers, tries, ends)
            except require("httpx").TransportError as error:
                wait = self._wait(AGAIN[-1], {}, tries, ends)
                if wait is None:
                    raise self._unreachable(error) from error
            else:
                if wait is None:
                    return self._value(answer)
            await asyncio.sleep(wait)
            tries += 1


def _listed(answers: Any) -> Sequence[Any]:
    """The candidates.

    Raises:
        ConfigError: one text, whose characters would be ranked, or no sequence.
    """
    if isinstance(answers, str) or not isinstance(answers, Sequence):
        raise ConfigError(f"expected a list of candidates, got {answers!r:.60}")
    return answers


def _plain(value: Any) -> Any:
    """A prompt or answer as JSON has it: text, or messages as objects."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return [dict(value)]
    if not isinstance(value, Sequence):
        raise ConfigError(f"expected a text or messages, got {value!r:.60}")
    return [asdict(turn) if is_dataclass(turn) and not isinstance(turn, type) else dict(turn) for turn in value]


def _explained(detail: Any) -> str:
    """A refusal in words: its reason, or the fields at fault."""
    if not isinstance(detail, list):
        return str(detail)
    problems = [f"{'.'.join(map(str, problem.get('loc', ())))}: {problem.get('msg', '')}" for problem in detail]
    return "; ".join(problems) or "no reason was given"
