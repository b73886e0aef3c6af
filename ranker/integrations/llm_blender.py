"""LLM-Blender's ``Blender`` (llm-blender 0.0.2) over any model of ours, for scripts that were written for it.

    from ranker.integrations.llm_blender import Blender

    blender = Blender("model.onnx")
    blender.rank(["Say hi"], [["Hi!", "No."]])  # [[1, 2]]

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

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ranker.errors import ConfigError, ScoringError
from ranker.integrations.arguments import batches, load_ranker, refuse
from ranker.loading import Ranker
from ranker.ranking.ranks import Ranking
from ranker.scoring.protocol import Floats

T = TypeVar("T")
Mode = Literal["[A,B]+[B,A]", "[A,B]", "[B,A]"]
RefMode = Literal["longest", "shortest", "median_length", "first", "last"]
Conversation = Sequence[Mapping[str, str]]

OPENING: Final = "Finish the following coversation in each i-th turn by filling in <Response i> with your response."
"""The beginning of a conversation's prompt, as llm-blender 0.0.2 joins it: with its misspelling, without a space."""


class Blender:
    """The ranking half of LLM-Blender.

    In every call, ``batch_size`` is the most inputs that the model gets at once; by default it gets all of them and
    cuts its batches by tokens. Scores do not depend on it. ``disable_tqdm`` hides the progress bar on standard error.
    Arguments that are not supported raise ``ConfigError``.

    Args:
        model: a loaded model, or what ``ranker.load`` reads. Default: ``loadranker`` loads it.
        options: those of ``ranker.load``.

    Raises:
        ConfigError: an option that ``ranker.load`` does not have.

    Example:
        >>> blender = Blender("model.onnx")
        >>> blender.rank(["Say hi"], [["Hi!", "No."]], disable_tqdm=True).tolist()
        [[1, 2]]
    """

    def __init__(self, model: str | Path | Ranker | None = None, **options: Any) -> None:
        if model is None and options:
            raise ConfigError(f"Blender: expected a model for the options {', '.join(options)}")
        self._ranker = None if model is None else load_ranker("Blender", model, options)

    def loadranker(self, ranker_path: str | Path | Ranker, device: str | None = None, **options: Any) -> None:
        """Load a model of any kind that ``ranker.load`` reads; ``device`` is another of its options.

        Raises:
            ConfigError: an option that ``ranker.load`` does not have.
        """
        if device is not None:
            options["device"] = device
        self._ranker = load_ranker("Blender.loadranker", ranker_path, options)

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

        Scores of a model with the layout ``ordered_pair`` are LLM-Blender's: the mean over columns of M - M^T, where M
        holds the logits of all ordered pairs.

        Raises:
            ConfigError: not one list of candidates and one instruction per input, or an argument that is not supported.
            ScoringError: candidates could not be scored.
        """
        refuse("Blender.rank", unsupported)
        prompts = _prompts(inputs, instructions, candidates)

        def scores_of(part: slice) -> list[Floats]:
            return self.ranker.score_batch(prompts[part], candidates[part])

        def rankings_of(part: slice) -> list[Ranking]:
            return self.ranker.rank_batch(prompts[part], candidates[part])

        if return_scores:
            scores = self._in_batches(len(prompts), batch_size, disable_tqdm, scores_of)
            return _array([2 * row for row in scores], np.float32)
        rankings = self._in_batches(len(prompts), batch_size, disable_tqdm, rankings_of)
        return _array([ranking.ranks for ranking in rankings], np.int32)

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
        """Whether A is better (inputs,), or the fp32 logits: the sum of both orders, as in LLM-Blender.

        ``[A,B]`` reads A first only, ``[B,A]`` reads B first only. A model that averages both orders refuses these two:
        load it with ``average_orders=False``. The logits of ``[B,A]`` say how much better B is, as in LLM-Blender;
        without ``return_logits`` the result says in every mode whether A is better.

        Raises:
            ConfigError: an unknown mode, or one order of a model that averages both.
            ScoringError: a pair could not be scored.
        """
        refuse("Blender.compare", unsupported)
        if mode not in get_args(Mode):
            raise ConfigError(f"expected mode {', '.join(get_args(Mode))}; got '{mode}'")
        info = self.ranker.info
        if mode != "[A,B]+[B,A]" and not info.order_free and info.average_orders:
            raise ConfigError(
                f"Blender.compare does not honour mode '{mode}' of a model that averages both orders; load it with "
                "average_orders=False, or use '[A,B]+[B,A]'"
            )
        prompts = _prompts(inputs, instructions, candidates_A, candidates_B)

        def logits_of(first: Sequence[str], second: Sequence[str]) -> Floats:
            """How much better the first text is (inputs,), where the model reads it first."""
            logits = self._in_batches(
                len(prompts),
                batch_size,
                disable_tqdm,
                lambda part: self.ranker.compare_batch(prompts[part], first[part], second[part]),
            )
            return np.array(logits, np.float32)

        if mode == "[B,A]":
            logits = logits_of(candidates_B, candidates_A)
            return logits if return_logits else logits < 0
        logits = logits_of(candidates_A, candidates_B)
        if mode == "[A,B]+[B,A]":
            reads_one_order = not info.order_free and not info.average_orders
            logits = logits - logits_of(candidates_B, candidates_A) if reads_one_order else 2 * logits
        return logits if return_logits else logits > 0

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
        if len(conversations_a) != len(conversations_b):
            raise ConfigError(
                f"expected as many conversations a as b, got {len(conversations_a)} and {len(conversations_b)}"
            )
        rendered = [
            _conversation(a, b, number)
            for number, (a, b) in enumerate(zip(conversations_a, conversations_b, strict=True))
        ]
        return self.compare(
            [prompt for prompt, _, _ in rendered],
            [first for _, first, _ in rendered],
            [second for _, _, second in rendered],
            batch_size=batch_size,
            return_logits=return_logits,
            mode=mode,
            disable_tqdm=disable_tqdm,
        )

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

        ``mode`` is another name of ``ref_mode``, used in LLM-Blender's documentation. ``ref_candidates``, one text per
        input, are references that are not chosen from the candidates. Scores are the sum of both orders, as in
        ``compare``.

        Raises:
            ConfigError: an unknown way to choose the reference, or not one reference per input.
            ScoringError: a candidate could not be compared.
        """
        refuse("Blender.rank_with_ref", unsupported)
        choose = REFERENCES.get(mode or ref_mode)
        if choose is None:
            raise ConfigError(f"expected ref_mode {', '.join(REFERENCES)}; got '{mode or ref_mode}'")
        references = list(ref_candidates) if ref_candidates is not None else [choose(group) for group in candidates]
        prompts = _prompts(inputs, instructions, candidates, references)
        logits = self._in_batches(
            len(prompts),
            batch_size,
            disable_tqdm,
            lambda part: self.ranker.rank_with_reference_batch(prompts[part], candidates[part], references[part]),
        )
        scores = [2 * row for row in logits]
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

        ``bubble`` is a seeded knockout of N - 1 comparisons, ``full`` scores all candidates.

        Raises:
            ConfigError: an unknown type of comparison.
            ScoringError: candidates could not be scored.
        """
        refuse("Blender.get_best_of_n", unsupported)
        if pairrm_cmp_type not in ("bubble", "full"):
            raise ConfigError(f"expected pairrm_cmp_type bubble or full, got '{pairrm_cmp_type}'")
        prompts = _prompts(inputs, instructions, candidates)
        schedule: Literal["knockout"] | None = "knockout" if pairrm_cmp_type == "bubble" and not return_all else None
        rankings = self._in_batches(
            len(prompts),
            batch_size,
            disable_tqdm,
            lambda part: self.ranker.rank_batch(prompts[part], candidates[part], schedule=schedule),
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
        """The worst candidate of each input.

        Raises:
            ScoringError: candidates could not be scored.
        """
        refuse("Blender.get_worst_of_n", unsupported)
        prompts = _prompts(inputs, instructions, candidates)
        rankings = self._in_batches(
            len(prompts), batch_size, disable_tqdm, lambda part: self.ranker.rank_batch(prompts[part], candidates[part])
        )
        return [group[ranking.order[-1]] for group, ranking in zip(candidates, rankings, strict=True)]

    @staticmethod
    def _in_batches(
        count: int, batch_size: int | None, disable_tqdm: bool, solve: Callable[[slice], Iterable[T]]
    ) -> list[T]:
        """One result per input; ``solve`` gets at most ``batch_size`` inputs at once."""
        results: list[T] = []
        for part in batches([1] * count, batch_size, progress=not disable_tqdm):
            try:
                results.extend(solve(part))
            except ScoringError as error:
                raise ScoringError(f"inputs {part.start} to {part.stop - 1}: {error}") from error
        return results


REFERENCES: Final[dict[str, Callable[[Sequence[str]], str]]] = {
    "longest": lambda group: max(group, key=len),
    "shortest": lambda group: min(group, key=len),
    "median_length": lambda group: sorted(group, key=len)[len(group) // 2],
    "first": lambda group: group[0],
    "last": lambda group: group[-1],
}


def _prompts(inputs: Sequence[str], instructions: Sequence[str] | None, *others: Sequence[Any]) -> list[str]:
    """Each instruction joined with its input, without a separator, as in LLM-Blender.

    Raises:
        ConfigError: instructions, or one of the other arguments, that are not one per input.
    """
    if instructions is not None and len(instructions) != len(inputs):
        raise ConfigError(f"expected one instruction per input ({len(inputs)}), got {len(instructions)}")
    for other in others:
        if isinstance(other, str) or len(other) != len(inputs):
            raise ConfigError(
                f"expected one entry of candidates and references per input ({len(inputs)}), got {len(other)}"
            )
    if instructions is None:
        return list(inputs)
    return [instruction + text for instruction, text in zip(instructions, inputs, strict=True)]


def _array(rows: Sequence[Any], dtype: type) -> NDArray[Any]:
    if len({len(row) for row in rows}) <= 1:
        return np.array([np.asarray(row, dtype) for row in rows])
    ragged = np.empty(len(rows), object)
    for i, row in enumerate(rows):
        ragged[i] = np.asarray(row, dtype)
    return ragged


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
