"""Rows that are there twice, and prompts that training shares with held-out rows."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence
from typing import Any, Final, Literal

from ranker.extras import require
from ranker.records import Preference
from ranker.text.templates import render_prompt

Sameness = Literal["exact", "near"]
PERMUTATIONS: Final = 128
SHINGLE: Final = 5
"""Characters of the pieces whose overlap is the Jaccard similarity of two texts."""

SPACE: Final = re.compile(r"\s+")


def normalised(text: str) -> str:
    """A text without differences of case, width and spacing (NFKC, casefold)."""
    return SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


def duplicates(preferences: Sequence[Preference], same: Sameness, *, similarity: float = 0.8) -> list[int]:
    """Indices of rows that repeat an earlier one.

    Args:
        preferences: the rows.
        same: ``exact``: the same prompt and the same answers, in any order; ``near``: texts of estimated Jaccard
            similarity at least ``similarity`` (MinHash, Broder 1997).
        similarity: in (0, 0.95]; use ``exact`` above.

    Raises:
        MissingExtraError: datasketch is not installed.
    """
    if same == "near":
        texts = [f"{_prompt(p)}\n{_answers(p)}" for p in preferences]
        return _repeated_nearly(texts, similarity)
    seen: set[Hashable] = set()
    found = []
    for index, preference in enumerate(preferences):
        key = (_prompt(preference), _answers(preference))
        if key in seen:
            found.append(index)
        seen.add(key)
    return found


def leaks(
    training: Sequence[Preference], held_out: Sequence[Preference], same: Sameness, *, similarity: float = 0.8
) -> list[int]:
    """Indices of training rows whose prompt also occurs among the held-out rows; arguments as in ``duplicates``.

    Rows without a prompt are compared by their answers.
    """
    texts = [_prompt(p) or _answers(p) for p in training]
    other = [_prompt(p) or _answers(p) for p in held_out]
    if same == "exact":
        known = set(other)
        return [index for index, text in enumerate(texts) if text in known]
    index = _index(similarity)
    for number, text in enumerate(dict.fromkeys(other)):
        index.insert(str(number), _minhash(text))
    return [number for number, text in enumerate(texts) if index.query(_minhash(text))]


def _repeated_nearly(texts: Sequence[str], similarity: float) -> list[int]:
    index, found = _index(similarity), []
    for number, text in enumerate(texts):
        hashed = _minhash(text)
        if index.query(hashed):
            found.append(number)
        else:
            index.insert(str(number), hashed)
    return found


def _index(similarity: float) -> Any:
    return require("datasketch").MinHashLSH(threshold=similarity, num_perm=PERMUTATIONS)


def _minhash(text: str) -> Any:
    hashed = require("datasketch").MinHash(num_perm=PERMUTATIONS)
    pieces = {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}
    hashed.update_batch([piece.encode() for piece in pieces])
    return hashed


def _prompt(preference: Preference) -> str:
    return normalised(render_prompt(preference.prompt))


def _answers(preference: Preference) -> str:
    return "\n".join(sorted(map(normalised, preference.candidates)))
