"""Duplicate rows, and prompts that training rows share with held-out rows."""

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
SLACK: Final = 0.3
"""The index proposes pairs this far below the similarity, so that it misses almost none."""

SHINGLE: Final = 5
"""Characters of a shingle; the Jaccard similarity of two texts is that of their sets of shingles."""

SPACE: Final = re.compile(r"\s+")


def normalised(text: str) -> str:
    """A text without differences of case, width and spacing (NFKC, casefold)."""
    return SPACE.sub(" ", unicodedata.normalize("NFKC", text)).strip().casefold()


def duplicates(preferences: Sequence[Preference], same: Sameness, *, similarity: float = 0.8) -> list[int]:
    """Indices of rows that repeat an earlier one.

    Args:
        preferences: the rows.
        same: ``exact``: the same prompt and the same answers with the same labels, in any order; ``near``: both the
            prompts and the answers have an estimated Jaccard similarity of at least ``similarity`` (MinHash, Broder
            1997), whatever the labels.
        similarity: in (0, 0.95]; use ``exact`` above.

    Raises:
        MissingExtraError: datasketch is not installed.
    """
    if same == "near":
        return _nearly_repeated(preferences, similarity)
    seen: set[Hashable] = set()
    repeated = []
    for index, preference in enumerate(preferences):
        labels = tuple(zip(map(normalised, preference.candidates), map(repr, preference.scores), strict=True))
        key = (_prompt(preference), tuple(sorted(labels)), preference.label)
        if key in seen:
            repeated.append(index)
        seen.add(key)
    return repeated


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
    hashes = {}
    for number, text in enumerate(dict.fromkeys(other)):
        hashes[number] = _minhash(text)
        index.insert(number, hashes[number])
    shared = []
    for number, text in enumerate(texts):
        hashed = _minhash(text)
        if any(hashes[key].jaccard(hashed) >= similarity for key in index.query(hashed)):
            shared.append(number)
    return shared


def _nearly_repeated(preferences: Sequence[Preference], similarity: float) -> list[int]:
    """Indexed by the answers, because different rows often share a prompt."""
    index = _index(similarity)
    repeated = []
    kept: dict[int, tuple[Any, Any]] = {}
    for number, preference in enumerate(preferences):
        prompt, answers = _minhash(_prompt(preference)), _minhash(_answers(preference))
        near = (kept[key] for key in index.query(answers))
        if any(p.jaccard(prompt) >= similarity and a.jaccard(answers) >= similarity for p, a in near):
            repeated.append(number)
        else:
            kept[number] = (prompt, answers)
            index.insert(number, answers)
    return repeated


def _index(similarity: float) -> Any:
    """An index that proposes candidate pairs; their similarity is measured afterwards."""
    return require("datasketch").MinHashLSH(threshold=max(0.2, similarity - SLACK), num_perm=PERMUTATIONS)


def _minhash(text: str) -> Any:
    hashed = require("datasketch").MinHash(num_perm=PERMUTATIONS)
    pieces = {text[i : i + SHINGLE] for i in range(max(1, len(text) - SHINGLE + 1))}
    hashed.update_batch([piece.encode() for piece in pieces])
    return hashed


def _prompt(preference: Preference) -> str:
    return normalised(render_prompt(preference.prompt))


def _answers(preference: Preference) -> str:
    return "\n".join(sorted(map(normalised, preference.candidates)))
