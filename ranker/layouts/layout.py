"""What all layouts share: their common fields, and the rows that they make."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ranker.text.separate import SeparateTexts
from ranker.text.tokenizer import Ids, TextTokenizer
from ranker.text.tokens import TextEncoder

Output = Literal["scalar", "accept_reject", "aspects", "gated"]
"""What the numbers of a candidate mean: a reward (the mean of several criteria), reject and accept logits, regressed
aspects, or a gated score before its aspects."""

CHARACTERS_PER_TOKEN: Final = 64
"""Characters of a text that are tokenised, per token of ``max_length``."""

TokenTypes = Literal["pair", "zero"]
"""Token types of an encoder: 1 for the second text of a pair, or 0 throughout, as some producers train."""

Truncation = Literal["prompt_first", "longest_first"]
"""How two texts that are too long are cut: the prompt loses its beginning before the answer loses its end, or the
longer one loses its end first, as tokenizers do it."""

Side = Literal["right", "left"]
"""The end at which ``longest_first`` cuts a text."""

Arrays = dict[str, NDArray[np.int64]]
"""Inputs of one forward pass, by name."""

Cell = tuple[int, int]
"""(row, column) of a score in the outputs of a pass."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sequence of the model's input; all arrays but ``readout`` are (sequence,).

    ``blocks`` numbers the block of each token: 0 the prompt, 1.. the candidates; encoders with token types read blocks
    above 0 as type 1. A layout may put another text first, but prefix sharing and token-level losses need the prompt in
    block 0. ``readout`` holds the positions that
    the head reads, and ``candidates`` whose scores come out, in the same order.
    """

    ids: Ids
    blocks: Ids
    positions: Ids
    readout: tuple[int, ...]
    candidates: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PackedGroup:
    """The rows of one group.

    ``truncated`` and ``prompts_truncated`` (candidates,) say whose own text was cut, and which were read after a prompt
    that was. ``together`` says that the rows need one batch, because they exchange states. ``with_reference`` says that
    one candidate more than the group has was read, the layout's empty answer as the last one. ``special_text`` says
    that a text spells a special token, and ``refused`` why candidates have no row.
    """

    rows: tuple[Row, ...]
    truncated: NDArray[np.bool_]
    prompts_truncated: NDArray[np.bool_]
    together: bool = False
    with_reference: bool = False
    special_text: bool = False
    refused: Mapping[int, str] = field(default_factory=dict)

    @property
    def prompt_truncated(self) -> bool:
        """Whether any candidate was read after a prompt that was cut."""
        return bool(self.prompts_truncated.any())

    @property
    def length(self) -> int:
        """Tokens of the longest row."""
        return max((len(row.ids) for row in self.rows), default=0)


class Layout(BaseModel, ABC):
    """The part of a model's configuration that decides its input ids; stored in checkpoints and in ``model.onnx``.

    Structure is inserted by id. Markers need no string in the tokenizer, so no text can spell one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: str
    max_length: int = Field(512, ge=16, description="tokens of a row; of shared_prompt, of a block")
    prompt_reserve: int = Field(64, ge=1, description="tokens the prompt keeps before a candidate is cut")
    pad_id: int
    position_offset: int = Field(0, description="added to every position (RoBERTa: padding index + 1)")

    scores_are_relative: ClassVar[bool] = True
    """Whether a score has meaning only within its group."""

    order_free: ClassVar[bool] = True
    """Whether scores cannot depend on the order of the candidates. If not, every row holds an ordered pair."""

    reads_prompt_once: ClassVar[bool] = False
    """Whether a prompt is read once for all candidates of a group."""

    renders_conversations: ClassVar[bool] = False
    """Whether a chat template renders what is read."""

    one_line: ClassVar[bool] = False
    """Whether line breaks within texts become spaces, because they are structure."""

    reads_padding_free: ClassVar[bool] = True
    """Whether a variable-length attention kernel, which has no mask of its own, can read the rows."""

    @model_validator(mode="after")
    def _candidates_have_room(self) -> Self:
        if 2 * self.prompt_reserve > self.max_length:
            raise ValueError(f"expected prompt_reserve at most half of max_length {self.max_length}")
        return self

    def encoder(self, tokenizer: TextTokenizer) -> TextEncoder:
        """What makes ids of a group's texts."""
        return SeparateTexts(tokenizer, self.character_limit, one_line=self.one_line)

    @abstractmethod
    def pack(self, prompt: Ids, candidates: Sequence[Ids], starts: Sequence[int] = ()) -> PackedGroup:
        """The rows of one group; scores come out in the order of ``candidates``.

        Truncation is per row, so no row depends on its batch neighbours. The prompt loses its oldest tokens first and
        keeps at least ``prompt_reserve``; only then is a candidate cut, at its end, and flagged.

        Args:
            prompt: its ids.
            candidates: their ids; of layouts that read conversations whole, those of whole rows.
            starts: where the answer begins in each whole row.
        """

    @abstractmethod
    def cost(self, prompt: int, candidates: Sequence[int]) -> tuple[int, int]:
        """(rows, tokens of the longest row) of a group with texts of these lengths, without packing it."""

    @property
    def marker_ids(self) -> tuple[int, ...]:
        """Ids of the layout's markers, which no text can spell."""
        return ()

    @property
    def character_limit(self) -> int:
        """Characters of one text that are read at all, so that tokenisation time is bounded before truncation."""
        return CHARACTERS_PER_TOKEN * self.max_length

    @property
    def extra_input(self) -> str | None:
        """The graph's input besides ``input_ids``, ``block_ids`` and ``position_ids``, if there is one."""
        return None

    def extra_arrays(self, units: Sequence[Sequence[Row]]) -> Arrays:
        """The array of ``extra_input`` for the rows of one pass.

        Args:
            units: the rows of the pass, those that exchange states together.
        """
        return {}

    def reduce(self, outputs: Any) -> Any:
        """From a candidate's outputs (last axis, numpy or torch) to its score: the mean of its criteria."""
        return outputs.mean(-1)

    def places(self, rows: Sequence[Row], start: int) -> dict[int, Cell]:
        """Where the outputs of a group's candidates are; of layouts that read pairs see ``PairLayout.cells``.

        Args:
            rows: all rows of the group.
            start: the number of its first row in the pass.
        """
        return {k: (start + n, column) for n, row in enumerate(rows) for column, k in enumerate(row.candidates)}


def padded(rows: Sequence[Sequence[int]], step: int = 1) -> NDArray[np.int64]:
    """Rows of different lengths as one array, -1 where a row has ended; its width is a multiple of ``step``, not 0."""
    width = -(-max(1, *map(len, rows)) // step) * step
    return np.array([[*row, *[-1] * (width - len(row))] for row in rows], np.int64)
