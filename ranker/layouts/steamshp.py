"""A question about two answers, whose answer is a word: SteamSHP's."""

from __future__ import annotations

from typing import ClassVar, Literal

from ranker.layouts.question import Question


class SteamSHP(Question):
    """SteamSHP's question, one sequence per ordered pair.

    ``POST: prompt RESPONSE A: left RESPONSE B: right Which response is better? RESPONSE``. Source: the model card of
    stanfordnlp/SteamSHP-flan-t5-xl.
    """

    layout: Literal["steamshp"] = "steamshp"

    one_line: ClassVar[bool] = True
