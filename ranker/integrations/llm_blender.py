"""LLM-Blender's ``Blender`` (llm-blender 0.0.2) with any model of this package.

| LLM-Blender | here | what differs |
|---|---|---|
| ``rank`` | ``Ranker.rank``, ``score`` | ragged candidates are legal; scores here are half of its scores |
| ``compare`` | ``Ranker.compare`` | its logit is the sum of both orders, here it is their mean |
| ``compare_conversations`` | ``Ranker.compare`` of one rendered prompt | its spelling is kept, as trained |
| ``rank_with_ref`` | ``Ranker.rank_with_reference`` | the reference may be given per prompt |
| ``get_best_of_n`` | ``Ranker.best_of_n`` | ``bubble`` is a seeded knockout: as many comparisons, repeatable |

Sources: llm_blender/blender/blender.py and pair_ranker of LLM-Blender; arXiv 2306.02561.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError
from ranker.integrations.arguments import refuse
from ranker.loading import Ranker, load

Mode = Literal["[A,B]+[B,A]", "[A,B]", "[B,A]"]
RefMode = Literal["longest", "shortest", "median_length", "first", "last"]
Conversation = Sequence[Mapping[str, str]]

OPENING: Final = "Finish the following coversation in each i-th turn by filling in <Response i> with your response.\n"
"""The beginning of a conversation's prompt; the misspelling is the text that PairRM was trained on."""


class Blender:
    """The ranking half of LLM-Blender, for scripts that were written for it.

    ``batch_size`` and ``disable_tqdm`` are accepted and ignored: batches are cut by tokens, and scores do not depend on
    them. Arguments that are not supported raise ``ConfigError``.

    Args:
        model: a model to load at once, as ``loadranker`` does.
        options: those of ``ranker.load``.
    """

    def __init__(self, model: str | None = None, **options: Any) -> None:
        self._ranker: Ranker | None = load(model, **options) if model is not None else None

    def loadranker(self, ranker_path: str, device: str | None = None, **options: Any) -> None:
        """Load a model of any kind that ``ranker.load`` reads; options are those of ``ranker.load``."""
        self._ranker = load(ranker_path, device=device or "auto", **options)  # type: ignore[arg-type]

    @property
    def ranker(self) -> Ranker:
        """The loaded model.

        Raises:
            ConfigError: no model is loaded.
        """
        if self._ranker is None:
            raise ConfigError("no ranker is loaded; call loadranker(path) first")
        return self._ranker

    def rank(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        return_scores: bool = False,
        batch_size: int | None = None,
        disable_tqdm: bool = False,
        **unsupported: Any,
    ) -> NDArray[Any]:
        """Ranks (inputs, N) as int32, 1 the best, or fp32 scores; ragged candidates give an array of arrays.

        Scores of a model in the published layout are LLM-Blender's: the mean over columns of M - M^T, where M holds the
        logits of all ordered pairs.
        """
        refuse("Blender.rank", unsupported)
        prompts = _sources(inputs, instructions)
        if return_scores:
            return _array([2 * scores for scores in self.ranker.score_batch(prompts, candidates)], np.float32)
        return _array([ranking.ranks for ranking in self.ranker.rank_batch(prompts, candidates)], np.int32)

    def compare(
        self,
        inputs: Sequence[str],
        candidates_A: Sequence[str],  # noqa: N803 - its name there
        candidates_B: Sequence[str],  # noqa: N803
        instructions: Sequence[str] | None = None,
        batch_size: int | None = None,
        return_logits: bool = False,
        mode: Mode = "[A,B]+[B,A]",
        disable_tqdm: bool = False,
        **unsupported: Any,
    ) -> NDArray[Any]:
        """Whether A is better (inputs,), or the logits: the sum of both orders, as in LLM-Blender.

        ``[A,B]`` and ``[B,A]`` give half of that sum, because models here give the mean of both orders. The logits of
        ``[B,A]`` say how much better B is, as in LLM-Blender; without ``return_logits`` the result says in every mode
        whether A is better.

        Raises:
            ConfigError: an unknown mode.
        """
        refuse("Blender.compare", unsupported)
        factors: dict[str, float] = {"[A,B]+[B,A]": 2.0, "[A,B]": 1.0, "[B,A]": -1.0}
        if mode not in factors:
            raise ConfigError(f"expected mode {', '.join(factors)}; got '{mode}'")
        logits = self.ranker.compare_batch(_sources(inputs, instructions), candidates_A, candidates_B)
        return logits * np.float32(factors[mode]) if return_logits else logits > 0

    def compare_conversations(
        self,
        conversations_a: Sequence[Conversation],
        conversations_b: Sequence[Conversation],
        batch_size: int | None = None,
        return_logits: bool = False,
        mode: Mode = "[A,B]+[B,A]",
        disable_tqdm: bool = False,
        **unsupported: Any,
    ) -> NDArray[Any]:
        """Whether the assistant of conversation A is better over all turns (conversations,), or the logits.

        Raises:
            ConfigError: conversations of different lengths or user turns, or that do not alternate.
        """
        refuse("Blender.compare_conversations", unsupported)
        rendered = [_conversation(a, b, i) for i, (a, b) in enumerate(_same(conversations_a, conversations_b))]
        inputs, first, second = (list(part) for part in zip(*rendered, strict=True)) if rendered else ([], [], [])
        return self.compare(inputs, first, second, return_logits=return_logits, mode=mode)

    def rank_with_ref(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        return_scores: bool = False,
        batch_size: int | None = None,
        ref_mode: RefMode = "longest",
        ref_candidates: Sequence[str] | None = None,
        mode: RefMode | None = None,
        disable_tqdm: bool = False,
        **unsupported: Any,
    ) -> NDArray[Any]:
        """Ranks or scores of candidates by how much better each is than a reference.

        ``mode`` is another name of ``ref_mode``, used in LLM-Blender's documentation. Scores are the sum of both
        orders, as in ``compare``.

        Raises:
            ConfigError: an unknown way to choose the reference.
        """
        refuse("Blender.rank_with_ref", unsupported)
        choose = REFERENCES.get(mode or ref_mode)
        if choose is None:
            raise ConfigError(f"expected ref_mode {', '.join(REFERENCES)}; got '{mode or ref_mode}'")
        references = list(ref_candidates) if ref_candidates is not None else [choose(group) for group in candidates]
        scores = [
            2 * s for s in self.ranker.rank_with_reference_batch(_sources(inputs, instructions), candidates, references)
        ]
        if return_scores:
            return _array(scores, np.float32)
        return _array([1 + (row[None, :] > row[:, None]).sum(axis=1) for row in scores], np.int32)

    def get_best_of_n(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        pairrm_cmp_type: Literal["bubble", "full"] = "bubble",
        return_all: bool = False,
        batch_size: int | None = None,
        disable_tqdm: bool = False,
        **unsupported: Any,
    ) -> list[Any]:
        """The best candidate of each input, or all of them, best first.

        Raises:
            ConfigError: an unknown type of comparison.
        """
        refuse("Blender.get_best_of_n", unsupported)
        if pairrm_cmp_type not in ("bubble", "full"):
            raise ConfigError(f"expected pairrm_cmp_type bubble or full, got '{pairrm_cmp_type}'")
        prompts = _sources(inputs, instructions)
        rankings = (
            self.ranker.rank_batch(prompts, candidates, schedule="knockout")
            if pairrm_cmp_type == "bubble" and not return_all
            else self.ranker.rank_batch(prompts, candidates)
        )
        ordered = [[group[i] for i in ranking.order] for group, ranking in zip(candidates, rankings, strict=True)]
        return ordered if return_all else [group[0] for group in ordered]

    def get_worst_of_n(
        self,
        inputs: Sequence[str],
        candidates: Sequence[Sequence[str]],
        instructions: Sequence[str] | None = None,
        batch_size: int | None = None,
        disable_tqdm: bool = False,
        **unsupported: Any,
    ) -> list[str]:
        """The worst candidate of each input."""
        refuse("Blender.get_worst_of_n", unsupported)
        rankings = self.ranker.rank_batch(_sources(inputs, instructions), candidates)
        return [group[ranking.order[-1]] for group, ranking in zip(candidates, rankings, strict=True)]


REFERENCES: Final[dict[str, Callable[[Sequence[str]], str]]] = {
    "longest": lambda group: max(group, key=len),
    "shortest": lambda group: min(group, key=len),
    "median_length": lambda group: sorted(group, key=len)[len(group) // 2],
    "first": lambda group: group[0],
    "last": lambda group: group[-1],
}


def _sources(inputs: Sequence[str], instructions: Sequence[str] | None) -> list[Any]:
    """Each instruction joined with its input, without a separator, as in LLM-Blender."""
    if instructions is None:
        return list(inputs)
    if len(instructions) != len(inputs):
        raise ConfigError(f"expected one instruction per input ({len(inputs)}), got {len(instructions)}")
    return [instruction + text for instruction, text in zip(instructions, inputs, strict=True)]


def _array(rows: Sequence[Any], dtype: type) -> NDArray[Any]:
    if len({len(row) for row in rows}) <= 1:
        return np.array([np.asarray(row, dtype) for row in rows])
    ragged = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        ragged[i] = np.asarray(row, dtype)
    return ragged


def _same(a: Sequence[Conversation], b: Sequence[Conversation]) -> list[tuple[Conversation, Conversation]]:
    if len(a) != len(b):
        raise ConfigError(f"expected as many conversations a as b, got {len(a)} and {len(b)}")
    return list(zip(a, b, strict=True))


def _conversation(a: Conversation, b: Conversation, number: int) -> tuple[str, str, str]:
    """The prompt with placeholders for the responses, and the responses of both conversations."""
    turns = []
    for name, conversation in (("a", a), ("b", b)):
        roles = [turn["role"].lower() for turn in conversation]
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise ConfigError(
                f"conversation {number} {name}: expected turns of user and assistant in turn, got {roles}"
            )
        turns.append([turn["content"] for turn in conversation])
    if len(a) != len(b) or turns[0][::2] != turns[1][::2]:
        raise ConfigError(f"conversation {number}: expected the same user turns in a and b")
    asked = [f"USER: {text}\nAssistant: <Response {i}>" for i, text in enumerate(turns[0][::2], 1)]
    answers = ["\n".join(f"<Response {i}>: {text}" for i, text in enumerate(side[1::2], 1)) for side in turns]
    return OPENING + "\n".join(asked), answers[0], answers[1]
