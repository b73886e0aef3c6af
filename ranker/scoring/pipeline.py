"""The one path from groups to scores, shared by training, the torch scorer and the ONNX scorer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError
from ranker.records import Group, Prompt, Spans
from ranker.scoring import batching
from ranker.scoring.protocol import Floats, GroupScores, failed
from ranker.scoring.token_budget import TokenBudget
from ranker.text.chat import join_turns, turns
from ranker.text.layout import Output, TextLayout
from ranker.text.packing import Packed, apart, cost, one_order, pack, share_prefix
from ranker.text.templates import clean, render_prompt
from ranker.text.tokenizer import Ids, TextTokenizer

S = TypeVar("S")
T = TypeVar("T")
Forward = Callable[[batching.Arrays], Floats]
"""From ``collate``'s arrays to logits: (rows, candidates, tasks)."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A way to run passes: ``forward``, from ``workers`` threads at once.

    ``tight`` says that passes are cheap, so that a batch ends where more padding would cost what a pass does.
    """

    forward: Forward
    workers: int = 1
    tight: bool = False


PART: Final = 512
"""Groups that are tokenised together."""

REDUCTIONS: Final[dict[Output, Callable[[Any], Any]]] = {
    "scalar": lambda logits: logits.mean(-1),
    "aspects": lambda logits: logits.mean(-1),
    "gated": lambda logits: logits[..., 0],
    "accept_reject": lambda logits: logits[..., 1] - logits[..., 0],
}
"""From a candidate's outputs (last axis, numpy or torch) to its score: mean, log-odds of accept, or gated score."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """The ids of one group's prompt and candidates, and which texts were cut at the character limit."""

    prompt: Ids
    candidates: tuple[Ids, ...]
    prompt_cut: bool
    candidates_cut: tuple[bool, ...]


class TextPipeline:
    """Tokenises, packs, batches and scores groups for one layout.

    Args:
        layout: how the model reads a group.
        tokenizer: the model's tokenizer.
        prefix_sharing: whether the model reads several answers after one prompt (``packing.share_prefix``).
    """

    def __init__(self, layout: TextLayout, tokenizer: TextTokenizer, *, prefix_sharing: bool = False) -> None:
        self.layout = layout
        self.tokenizer = tokenizer
        self.prefix_sharing = prefix_sharing
        self.one_order = False

    def read_one_order(self) -> None:
        """Read every pair in one order from now on: half the rows, and nothing that evens out a preference for a place.

        Raises:
            ConfigError: the model does not read ordered pairs.
        """
        if self.layout.order_free:
            raise ConfigError(
                f"average_orders=False is for models that read ordered pairs; layout '{self.layout.layout}' has no "
                "order"
            )
        self.one_order = True

    def tokenize(self, groups: Sequence[Group]) -> list[Tokens]:
        """Ids of every group; each distinct text is tokenised once."""
        limit = self.layout.character_limit
        prompts = [self._contents(group.prompt) for group in groups]
        answers = [tuple(map(self._clean, group.candidates)) for group in groups]
        distinct = dict.fromkeys(content[-limit:] for contents in prompts for content in contents)
        distinct.update(dict.fromkeys(answer[:limit] for group in answers for answer in group))
        ids = dict(zip(distinct, self.tokenizer.encode(list(distinct)), strict=True))
        return [
            Tokens(
                prompt=join_turns(self.layout, [content[-limit:] for content in contents], ids),
                candidates=tuple(ids[answer[:limit]] for answer in group),
                prompt_cut=any(len(content) > limit for content in contents),
                candidates_cut=tuple(len(answer) > limit for answer in group),
            )
            for contents, group in zip(prompts, answers, strict=True)
        ]

    def within(self, answer: str, spans: Spans) -> NDArray[np.bool_]:
        """Which of an answer's tokens, as ``tokenize`` gives them, have a character in one of ``spans``: (tokens,)."""
        return self.tokenizer.within(self._clean(answer)[: self.layout.character_limit], spans)

    def _contents(self, prompt: Prompt) -> list[str]:
        """The texts of a prompt: its turns under a chat layout, else one rendering of it all."""
        texts = [text for _, text in turns(prompt)] if self.layout.chat else [render_prompt(prompt)]
        return list(map(self._clean, texts))

    def _clean(self, text: str) -> str:
        return clean(text).replace("\n", " ") if self.layout.one_line else clean(text)

    def pack(self, tokens: Tokens) -> Packed:
        """The rows of one group."""
        packed = pack(self.layout, tokens.prompt, tokens.candidates)
        if self.prefix_sharing:
            packed = share_prefix(packed, self.layout.max_length)
        elif self.one_order:
            packed = one_order(packed)
        return replace(
            packed,
            truncated=packed.truncated | np.array(tokens.candidates_cut, np.bool_),
            prompt_truncated=packed.prompt_truncated or tokens.prompt_cut,
        )

    def score(
        self,
        groups: Sequence[Group],
        forward: Forward,
        max_tokens_per_forward: int | TokenBudget,
        *,
        preserve_order: bool = False,
        retry: bool = True,
        beside: Engine | None = None,
    ) -> list[GroupScores]:
        """Score groups with ``forward`` in batches of at most ``max_tokens_per_forward`` padded tokens.

        Order-free layouts read each distinct answer of a group once, in an order of their own, so scores are bitwise
        the same whatever order the candidates come in; ``preserve_order`` reads them as they come, which is how the
        model itself is measured. ``published`` reads every ordered pair; its scores are the least-squares solution of
        the order-averaged logits, ``s_i - s_j`` for two candidates being ``(logit(i, j) - logit(j, i)) / 2``. SteamSHP
        is read like it, a lone answer against an empty one: ``(logit(i, empty) - logit(empty, i)) / 2``. After
        ``read_one_order`` the one logit of a pair takes the place of both.

        Memory is bounded: groups are tokenised and packed in slices, each in a thread while the one before it is
        computed. A batch that fails is halved; a group that fails alone gets an error. Without ``retry`` a failure is
        raised. With ``beside``, passes run next to each other unless there is too little work for that.
        """
        budget = (
            TokenBudget((max_tokens_per_forward,))
            if isinstance(max_tokens_per_forward, int)
            else max_tokens_per_forward
        )
        keep = preserve_order or not self.layout.order_free
        canonical = list(groups) if keep else [Group(g.prompt, tuple(sorted(set(g.candidates)))) for g in groups]
        results: list[GroupScores] = []
        slices = self._slices(canonical, budget)
        engine: Engine | None = None
        # Closed here, also by an interruption: a thread that computes while Python shuts down aborts the process.
        with closing(slices if len(canonical) <= PART else ahead(slices)) as coming:
            for packed, filled in coming:
                start, end = len(results), len(results) + len(packed)
                units = batching.units(packed)
                if engine is None:  # the first slice decides, so that the last one, which may be short, changes nothing
                    enough = beside is not None and 2 * len(units) > beside.workers
                    engine = beside if beside is not None and enough else Engine(forward)
                with budget.timed(filled) as tokens:
                    raw, errors = self._forward(packed, units, engine, tokens, retry)
                parts = zip(groups[start:end], canonical[start:end], packed, raw, errors, strict=True)
                results += [self._result(*item) for item in parts]
        return results

    def _slices(self, groups: Sequence[Group], budget: TokenBudget) -> Generator[tuple[list[Packed], int]]:
        """Consecutive groups of about ``budget.slice_tokens`` padded tokens, and how many tokens those are."""
        part: list[Packed] = []
        filled = 0
        for start in range(0, len(groups), PART):
            for item in self.tokenize(groups[start : start + PART]):
                part.append(self.pack(item))
                rows, longest = cost(self.layout, len(item.prompt), [len(c) for c in item.candidates])
                filled += rows * longest
                if filled >= budget.slice_tokens:
                    yield part, filled
                    part, filled = [], 0
        if part:
            yield part, filled

    def _forward(
        self,
        packed: Sequence[Packed],
        units: Sequence[batching.Unit],
        engine: Engine,
        max_tokens_per_forward: int,
        retry: bool,
    ) -> tuple[list[NDArray[np.float32]], list[str | None]]:
        """Per group a (N, N) matrix of directed logits (ordered pairs) or (N,) scores, and why it failed."""
        counts = [len(item.truncated) + item.empty for item in packed]
        out = [np.zeros((n,) if self.layout.order_free else (n, n), np.float32) for n in counts]
        errors: list[str | None] = [None] * len(packed)

        def run(batch: Sequence[batching.Unit]) -> Floats | Exception:
            try:
                logits: Floats = REDUCTIONS[self.layout.output](engine.forward(batching.collate(self.layout, batch)))
            except Exception as error:  # whatever the engine raises, most often for want of memory
                if not retry:
                    raise
                return error
            return logits

        waiting = list(batching.batches(units, max_tokens_per_forward, engine.workers, tight=engine.tight))[::-1]
        workers = engine.workers
        while waiting:
            failures: list[list[batching.Unit]] = []
            with closing(at_once(run, waiting, workers)) as computed:
                for batch, logits in zip(waiting, computed, strict=True):
                    if not isinstance(logits, Exception):
                        self._place(batch, logits, out)
                    elif len(batch) > 1:
                        failures += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
                    elif self.prefix_sharing and len(batch[0].rows[0].candidates) > 1:
                        failures += [[batching.Unit(batch[0].group, (row,))] for row in apart(batch[0].rows[0])]
                    else:
                        reason = (str(logits).strip() or type(logits).__name__).splitlines()[-1]
                        errors[batch[0].group] = f"the model failed on this row: {reason:.200}"
            waiting, workers = failures, 1  # what failed may have all the memory
        return out, errors

    def _place(self, batch: Sequence[batching.Unit], logits: Floats, out: Sequence[NDArray[np.float32]]) -> None:
        values = iter(logits)
        for unit in batch:
            for row in unit.rows:
                found = next(values)
                if self.layout.order_free:
                    out[unit.group][list(row.candidates)] = found[: len(row.candidates)]
                else:
                    i, j = row.candidates
                    out[unit.group][i, j] = found[0] - found[1]
                    if self.one_order:
                        out[unit.group][j, i] = -out[unit.group][i, j]

    def _result(
        self, group: Group, canonical: Group, packed: Packed, raw: NDArray[np.float32], error: str | None
    ) -> GroupScores:
        if error is not None:
            return failed(group, error)
        if not np.isfinite(raw).all():
            return failed(group, "the model gave NaN or infinity for this row; its weights or precision are at fault")
        if self.layout.order_free:
            place = {candidate: i for i, candidate in enumerate(canonical.candidates)}
            order = np.array([place[candidate] for candidate in group.candidates], np.intp)
            return GroupScores(raw[order], packed.truncated[order], packed.prompt_truncated)
        flips = int((np.triu(np.sign(raw) + np.sign(raw.T), 1) != 0).sum())
        scores = ((raw - raw.T) / 2).sum(axis=1) / max(1, len(raw))
        if packed.empty:
            scores, flips = scores[:-1] - scores[-1], 0
        return GroupScores(scores, packed.truncated, packed.prompt_truncated, order_flips=flips)


def at_once(run: Callable[[S], T], items: Sequence[S], workers: int) -> Generator[T]:
    """``run`` of each item in order, computed by ``workers`` threads, few items ahead so that they end soon."""
    if workers == 1 or len(items) == 1:
        yield from map(run, items)
        return
    threads, running = ThreadPoolExecutor(workers), deque[Future[T]]()
    try:
        for item in items:
            running.append(threads.submit(run, item))
            if len(running) == 2 * workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def ahead(items: Iterator[T]) -> Generator[T]:
    """The items of ``items``, each made in a thread while the one before it is used."""
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
