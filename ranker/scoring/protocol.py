"""The ``Scorer`` protocol: all that the packages above the models know of a model."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError
from ranker.records import Group, Rendered, Turns

logger = logging.getLogger(__name__)

Floats = NDArray[np.float32]
_settled: WeakSet[Scorer] = WeakSet()
"""Models of which ``warn_of_lone`` has warned, and those that compare nothing."""


@dataclass(frozen=True, slots=True)
class GroupScores:
    """The result for one group of N candidates.

    ``scores`` (N,) are raw fp32 logits, higher is better; a difference of two is the log-odds that the first is
    preferred. NaN only where ``error`` says why. ``truncated`` (N,) marks candidates whose own text was cut;
    ``prompt_truncated`` says that the prompt lost its oldest part. ``order_flips`` counts the pairs of the group whose
    winner changes when the two answers change places; order-free models have none by construction, and where pairs are
    read in one order they are not seen. ``special_text`` says that a text spells a special token of the model, which
    was read as characters, while ``apply_chat_template`` would make structure of it; it may be a text of another answer
    to the same prompt.
    """

    scores: Floats
    truncated: NDArray[np.bool_]
    prompt_truncated: bool = False
    order_flips: int = 0
    error: str | None = None
    special_text: bool = False


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured of a model's scores on ``n`` comparisons of ``data``; nothing where n is 0.

    ``sigmoid(logit / temperature)`` is how often the answer is preferred. ``mean`` and ``std`` are those of the scores,
    for trainers that want rewards of unit size; of models whose scores have no meaning across prompts, within prompts.
    """

    temperature: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    n: int = 0
    data: str = ""


@dataclass(frozen=True, slots=True)
class ScorerInfo:
    """What callers may want to know of a model.

    ``layout`` is how it reads candidates, ``precision`` that of its backbone's numbers, ``device`` where it runs,
    ``max_length`` in tokens. ``scores_are_relative`` says that scores compare the candidates of one prompt only,
    ``order_free`` that the order of the candidates cannot change them; if it can, ``average_orders`` says that both
    orders of a pair are read. ``renders_conversations`` says that a chat template renders what is read, so that a
    text to which the caller has applied it is read as it is (``ranker.records.Rendered``). ``parallel_passes`` is how
    many forward passes run at once. ``engine`` is what computes them, with its version, and ``max_tokens_per_forward``
    the most padded tokens of one now. ``providers`` are onnxruntime's names of the devices, and ``graph_sha256`` is the
    graph's hash; both are empty for a torch model.
    """

    layout: str
    precision: str
    device: str
    max_length: int
    scores_are_relative: bool
    order_free: bool
    average_orders: bool = True
    renders_conversations: bool = False
    parallel_passes: int = 1
    engine: str = ""
    max_tokens_per_forward: int = 0
    calibration: Calibration = Calibration()
    providers: tuple[str, ...] = ()
    graph_sha256: str = ""


class Scorer(Protocol):
    """A reward model or pairwise ranker, whatever runs it."""

    @property
    def info(self) -> ScorerInfo:
        """What it is and where it runs."""
        ...

    def score(self, groups: Sequence[Group], *, preserve_order: bool = False) -> list[GroupScores]:
        """Score each group's candidates; one result per group, in order. A bad group gets an error, never raises.

        ``preserve_order`` reads the candidates in the order they come, for measuring; otherwise an order-free model may
        choose an order, and read equal answers once.
        """
        ...

    def token_counts(self, group: Group) -> list[int]:
        """Tokens of each candidate's text, before truncation."""
        ...

    def compare(self, pairs: Sequence[Group]) -> Floats:
        """Logits (len(pairs),) that the first of two candidates is better (> 0); NaN where the pair failed.

        Raises:
            ValueError: a group does not hold exactly two candidates.
        """
        ...


NOT_RENDERED: Final = (
    "this model reads a prompt and an answer in a layout of its own, not a text to which a chat template was applied; "
    "give prompt and answer apart, without rendered"
)
"""The refusal of rendered texts by encoders and pair rankers."""


def rendered_group(group: Group, info: ScorerInfo, *, add_special_tokens: bool = False) -> Group:
    """A group whose prompt and answer, one after the other, are a text that the caller has rendered.

    Args:
        group: with a prompt of text.
        info: of the model.
        add_special_tokens: see ``Rendered``.

    Raises:
        ConfigError: the model does not render conversations, or the prompt is messages, which are not rendered.
    """
    if not info.renders_conversations:
        raise ConfigError(NOT_RENDERED)
    if not isinstance(group.prompt, str) or any(isinstance(answer, Turns) for answer in group.candidates):
        raise ConfigError("rendered: expected texts to which the chat template was applied, got messages")
    prompt = group.prompt
    texts = (Rendered(prompt + answer, add_special_tokens=add_special_tokens) for answer in group.candidates)
    return Group(prompt, tuple(texts))


LONE: Final = (
    "this model compares answers to one prompt: the score of a lone answer means nothing; give at least two answers to "
    "every prompt, or use a pointwise model"
)


def has_lone(scorer: Scorer, groups: Iterable[Group]) -> bool:
    """Whether a model that compares is given a group of one answer."""
    return any(len(group.candidates) == 1 for group in groups) and scorer.info.scores_are_relative


def warn_of_lone(scorer: Scorer, groups: Iterable[Group]) -> None:
    """Say once per model that the score of a lone answer means nothing, where there is one."""
    if scorer in _settled:
        return
    if not scorer.info.scores_are_relative:
        _settled.add(scorer)
    elif has_lone(scorer, groups):
        _settled.add(scorer)
        logger.warning(LONE)


def failed(group: Group, reason: str) -> GroupScores:
    """The result of a group that could not be scored."""
    count = len(group.candidates)
    return GroupScores(np.full(count, np.nan, np.float32), np.zeros(count, np.bool_), error=reason)


def margins(pairs: Sequence[Group], results: Sequence[GroupScores]) -> Floats:
    """Comparison logits (len(pairs),) as the difference of each group's two scores.

    Raises:
        ValueError: a group does not hold exactly two candidates.
    """
    for index, pair in enumerate(pairs):
        if len(pair.candidates) != 2:
            raise ValueError(f"pair {index}: expected two candidates, got {len(pair.candidates)}")
    return np.array([r.scores[0] - r.scores[1] for r in results], dtype=np.float32)
