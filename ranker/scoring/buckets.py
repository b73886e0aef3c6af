"""A few sizes of forward passes, for engines and kernels that plan or compile anew for every shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ranker.layouts import Layout
from ranker.layouts.layout import Arrays
from ranker.records import Group
from ranker.scoring.protocol import Scorer

LENGTH_STEPS: Final = ((96, 8), (192, 16), (384, 32))
"""Up to which length rows are padded to a multiple of what; longer ones to ``LONGEST_STEP``.

26 lengths up to 512. Rows of natural lengths (log-normal, median 67 to 245 tokens) get 6 to 9 % padding; powers of two
would give them 15 to 17 %.
"""

LONGEST_STEP: Final = 64

SMALL_COUNTS: Final = (1, 2, 3, 4, 6, 8)
"""Numbers of rows up to 8; above, four numbers between a power of two and the next."""


def length_bucket(length: int) -> int:
    """The smallest padded length that holds a row of ``length`` tokens.

    Example:
        >>> length_bucket(70), length_bucket(200), length_bucket(600)
        (72, 224, 640)
    """
    step = next((step for top, step in LENGTH_STEPS if length <= top), LONGEST_STEP)
    return -(-length // step) * step


def count_bucket(count: int) -> int:
    """The smallest allowed number that holds ``count``; from 8 on at most a quarter is padding.

    Example:
        >>> count_bucket(5), count_bucket(9), count_bucket(50)
        (6, 10, 56)
    """
    if count <= SMALL_COUNTS[-1]:
        return next(size for size in SMALL_COUNTS if size >= count)
    quarter = 1 << (count - 1).bit_length() - 3
    return -(-count // quarter) * quarter


def shape_bucket(rows: int, length: int, budget: int | None = None) -> tuple[int, int]:
    """The shape that a pass of ``rows`` rows, the longest of ``length`` tokens, is padded to.

    Args:
        rows: of the pass.
        length: tokens of its longest row.
        budget: most padded tokens of a pass; the number of rows that fills it is one more allowed number.
    """
    width = length_bucket(length)
    full = 0 if budget is None else budget // width
    count = count_bucket(rows)
    return (min(count, full) if rows <= full else count), width


def text_of_length(scorer: Scorer, words: str, tokens: int) -> str:
    """A text of about so many tokens, made of ``words`` again and again."""
    text = words * (1 + tokens // max(1, len(words.split())))
    (count,) = scorer.token_counts(Group("", (text,)))
    return text[: max(1, len(text) * tokens // max(count, tokens))]


def plan(lengths: Sequence[int], rows: Sequence[int], budget: int) -> list[list[int]]:
    """Cut items into batches that fill ``budget`` padded tokens, so that few shapes appear.

    As ``ranker.scoring.batching.plan``, but batches are filled from the longest item on: all of one length bucket have
    the same number of rows, as near as the items allow, and only the batch of the shortest items is a small one.
    """
    batches: list[list[int]] = []
    current: list[int] = []
    filled = most = 0
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        if not current or filled + rows[index] > most:
            current = []
            batches.append(current)
            filled, most = 0, budget // length_bucket(lengths[index])
        current.append(index)
        filled += rows[index]
    return batches[::-1]


def padded(arrays: Arrays, layout: Layout, budget: int | None = None) -> Arrays:
    """The same pass in the shape of its bucket: empty places at the ends of rows, and copies of the first row.

    Args:
        arrays: as ``ranker.scoring.batching.collate`` gives them.
        layout: how the model reads a group.
        budget: as in ``shape_bucket``.
    """
    count, longest = arrays["input_ids"].shape
    rows, width = shape_bucket(count, longest, budget)
    empty = {"input_ids": layout.pad_id, "position_ids": layout.position_offset}
    texts = ("input_ids", "block_ids", "position_ids")
    return {
        name: _grown(array, rows, width if name in texts else count_bucket(array.shape[1]), empty.get(name, -1))
        for name, array in arrays.items()
    }


def _grown(array: np.ndarray, rows: int, width: int, empty: int) -> np.ndarray:
    wide = np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=empty)
    return np.concatenate([wide, np.repeat(wide[:1], rows - len(array), axis=0)])
