"""How texts that share a row share its tokens."""

from __future__ import annotations

from collections.abc import Sequence


def longest_first(total: int, first: int, second: int) -> tuple[int, int]:
    """Tokens kept of two texts when the longer one is cut until they fit: the ``longest_first`` of tokenizers.

    Source: ``truncate_encodings`` of tokenizers 0.22 (src/utils/truncation.rs).

    Example:
        >>> longest_first(100, 80, 50)
        (50, 50)
        >>> longest_first(100, 90, 20)
        (80, 20)
    """
    if first + second <= total:
        return first, second
    short, long = sorted((first, second))
    long = short if short > total else max(short, total - short)
    if short + long > total:
        short, long = total // 2, total // 2 + total % 2
    return (long, short) if first > second else (short, long)


def split_budget(total: int, prompt: int, candidates: Sequence[int], reserve: int) -> tuple[int, list[int]]:
    """Tokens kept of a prompt and of each candidate that share ``total`` tokens.

    Candidates come first: the prompt yields down to ``reserve`` before any candidate is cut. Candidates that must be
    cut share the remaining tokens equally, and what a short one leaves goes to the longer ones. A total below the
    reserve is the prompt's.

    Example:
        >>> split_budget(100, 80, [50], reserve=20)
        (50, [50])
        >>> split_budget(100, 80, [10, 90], reserve=20)
        (20, [10, 70])
    """
    kept = list(candidates)
    room = max(0, total - min(prompt, reserve))
    if sum(kept) > room:
        kept = [0] * len(candidates)
        shortest_first = sorted(range(len(candidates)), key=lambda i: candidates[i])
        while shortest_first:
            share = room // len(shortest_first)
            i = shortest_first.pop(0)
            kept[i] = min(candidates[i], share)
            room -= kept[i]
    return min(prompt, max(0, total - sum(kept))), kept
