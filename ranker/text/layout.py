"""What a model reads: the layout of its input, its structure ids and its length limits."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

PairwiseLayout = Literal["hub", "set", "published"]
"""Layouts of the pairwise encoder."""

CandidateLayout = Literal[PairwiseLayout, "single", "steamshp"]
Output = Literal["scalar", "accept_reject", "aspects", "gated"]
"""What the numbers of a candidate mean: a reward (the mean of several criteria), reject and accept logits, regressed
aspects, or a gated score before its aspects."""


class TextLayout(BaseModel):
    """The part of a model's configuration that decides its input ids; stored in checkpoints and in ``model.onnx``.

    Layouts (S prompt tokens, C answer tokens, N candidates):

    - ``hub``: one sequence per group. Block 0 is ``[CLS] <source> prompt [SEP]``, block i ``[CLS] <candidate> answer_i
      [SEP]``. A token sees its own block and block 0; block 0 sees everything. S + N C tokens.
    - ``set``: one row per candidate, ``[CLS] prompt [SEP] answer_i [SEP]``. With ``exchange`` a row also sees the
      [CLS] of the other rows of its group in every layer (Set-Encoder, arXiv 2404.06912); without it the model is
      pointwise. N (S + C) tokens.
    - ``single``: one row per candidate for a pointwise reward model, ``prefix prompt between answer suffix``; the parts
      between are ids, of an encoder's pair (``[CLS]``, ``[SEP]``) or of a decoder's chat template.
    - ``published``: LLM-Blender's PairRM (arXiv 2306.02561), one sequence per ordered pair, full attention, running
      positions, two candidate markers.
    - ``steamshp``: SteamSHP's question, one sequence per ordered pair: ``POST: prompt RESPONSE A: left RESPONSE B:
      right Which response is better? RESPONSE``. An answer that is alone is read against the empty answer ``.``.

    Structure is inserted by id. Markers need no string in the tokenizer, so no text can spell one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layout: CandidateLayout
    exchange: bool = True
    max_length: int = Field(512, ge=16, description="tokens per block (hub), row (set) or sequence (published)")
    prompt_reserve: int = Field(64, ge=1, description="tokens the prompt keeps before an answer is cut")
    cls_id: int = Field(-1, description="hub, set, published: opens a block")
    sep_id: int = Field(-1, description="hub, set, published: closes a block")
    pad_id: int
    prefix: tuple[int, ...] = Field((), description="single, steamshp: before the prompt")
    between: tuple[int, ...] = Field((), description="single, steamshp: between a user turn and the (first) answer")
    second: tuple[int, ...] = Field((), description="steamshp: between the two answers")
    suffix: tuple[int, ...] = Field((), description="single, steamshp: after the answer; a decoder is read at its end")
    empty: tuple[int, ...] = Field((), description="steamshp: the answer that a lone one is read against")
    turn: tuple[int, ...] | None = Field(None, description="single: between an answer and the next user turn")
    output: Output = "scalar"
    markers: tuple[int, ...] = Field((), description="ids of <source>, then <candidate> or <candidate1>, <candidate2>")
    position_offset: int = Field(0, description="added to every position (RoBERTa: padding index + 1)")

    @model_validator(mode="after")
    def _answers_have_room(self) -> Self:
        if 2 * self.prompt_reserve > self.max_length:
            raise ValueError(f"expected prompt_reserve at most half of max_length {self.max_length}")
        return self

    @property
    def character_limit(self) -> int:
        """Characters of one text that are read at all, so that tokenisation time is bounded before truncation."""
        return 64 * self.max_length

    @property
    def chat(self) -> bool:
        """Whether conversations keep their turns (a chat template); else they are rendered as text."""
        return self.turn is not None

    @property
    def scores_are_relative(self) -> bool:
        """Whether a score has meaning only within its group."""
        return not (self.layout == "single" or (self.layout == "set" and not self.exchange))

    @property
    def order_free(self) -> bool:
        """Whether scores cannot depend on the order of the candidates."""
        return self.layout not in ("published", "steamshp")

    @property
    def readout(self) -> bool:
        """Whether rows record positions that the head reads."""
        return self.layout in ("hub", "published") or self.output == "gated"

    @property
    def one_line(self) -> bool:
        """Whether line breaks within texts become spaces (they are structure here)."""
        return self.layout == "steamshp"
