"""Builds the sample: draws tasks, writes graded candidates, balances their lengths, splits."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ranker import atomic
from ranker.data.sample import words
from ranker.data.sample.families import TRAINED, UNSEEN, draw
from ranker.data.sample.replies import STYLES, Items
from ranker.data.sample.task import Task
from ranker.data.writers import check_folder

SEED: Final = 20261
SIZES: Final = {"train": 2400, "validation": 240, "test": 480}
UNSEEN_SHARE: Final = 0.25
"""Share of the test prompts that come from families absent elsewhere."""

GRADES: Final[dict[str, float]] = {
    "right": 1.0,
    "ignores_format": 0.7,
    "partly_right": 0.4,
    "wrong": 0.2,
    "wrong_and_ignores_format": 0.1,
    "other_question": 0.0,
}
"""Gold score of each kind of candidate."""

DRAWS: Final = 8
"""Wordings drawn per prompt; the one that balances the lengths best is kept."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One answer and its labels."""

    text: str
    kind: str
    aspects: dict[str, float]


def rows(split: str) -> Iterator[dict[str, Any]]:
    """The rows of one split, always the same.

    Raises:
        KeyError: the split is not train, validation or test.
    """
    for name, row in _all():
        if name == split:
            yield row


def write(folder: Path) -> list[Path]:
    """Write ``train.jsonl``, ``validation.jsonl`` and ``test.jsonl`` into ``folder``."""
    check_folder(folder)
    lines: dict[str, list[str]] = {split: [] for split in SIZES}
    for split, row in _all():
        lines[split].append(json.dumps(row, ensure_ascii=False))
    paths = []
    for split, content in lines.items():
        path = folder / f"{split}.jsonl"
        atomic.write_text(path, "\n".join(content) + "\n")
        paths.append(path)
    return paths


def _all() -> Iterator[tuple[str, dict[str, Any]]]:
    rng = random.Random(SEED)
    seen: set[str] = set()
    for split, size in SIZES.items():
        balance = 0
        for number in range(size):
            unseen = split == "test" and number < size * UNSEEN_SHARE
            families = UNSEEN if unseen else TRAINED
            family = list(families)[number % len(families)]
            task = draw(family, rng)
            while task.question in seen:
                task = draw(family, rng)
            seen.add(task.question)
            style = rng.choice(list(STYLES))
            other = rng.choice([f for f in (*TRAINED, *(UNSEEN if unseen else ())) if f != family])
            stray = draw(other, rng)
            plan = _kinds(rng)
            draws = [[_candidate(rng, kind, task, style, stray) for kind in plan] for _ in range(DRAWS)]
            candidates = min(draws, key=lambda drawn: abs(balance + _longer_wins(drawn)))
            balance += _longer_wins(candidates)
            rng.shuffle(candidates)
            ask = rng.choice(STYLES[style].asks)
            prompt = f"{task.question} {ask}" if rng.random() < 0.7 else f"{ask} {task.question}"
            yield split, _row(f"{split}-{number:04d}", family, style, prompt, candidates)


def _kinds(rng: random.Random) -> list[str]:
    """Four to six kinds, the best always among them."""
    worse = [kind for kind in GRADES if kind != "right"]
    return ["right", *rng.sample(worse, rng.randint(3, 5))]


def _candidate(rng: random.Random, kind: str, task: Task, style: str, stray: Task) -> Candidate:
    items, joiner = _items(rng, kind, task, stray)
    ignores = kind.endswith("ignores_format") or (kind == "other_question" and rng.random() < 0.5)
    used = rng.choice([s for s in STYLES if s != style]) if ignores else style
    text = STYLES[used].render(items, joiner)
    opener = rng.choice(words.OPENERS) if rng.random() < 0.5 else ""
    closer = rng.choice(words.CLOSERS) if rng.random() < 0.5 else ""
    separator = "\n" if used in ("list", "numbered") else " "
    reply = separator.join(part for part in (opener, text, closer) if part)
    correctness = {"partly_right": 0.5}.get(kind, float(kind in ("right", "ignores_format")))
    aspects = {
        "correctness": correctness,
        "instruction_following": float(kind != "other_question" and used == style),
        "concision": 1.0 - 0.5 * bool(opener) - 0.5 * bool(closer),
        "format": float(used == style),
    }
    return Candidate(reply, kind, aspects)


def _items(rng: random.Random, kind: str, task: Task, stray: Task) -> tuple[Items, str]:
    if kind == "other_question":
        return stray.right, stray.joiner
    if kind.startswith("wrong"):
        return task.wrong, task.joiner
    if kind == "partly_right":
        spoiled = rng.randrange(len(task.right))
        mixed = [w if i == spoiled else r for i, (r, w) in enumerate(zip(task.right, task.wrong, strict=True))]
        return tuple(mixed), task.joiner
    return task.right, task.joiner


def _longer_wins(candidates: list[Candidate]) -> int:
    """Comparisons that the longer answer wins, less those that the shorter wins."""
    return sum(
        (len(a.text) > len(b.text)) - (len(a.text) < len(b.text))
        for a in candidates
        for b in candidates
        if GRADES[a.kind] > GRADES[b.kind]
    )


def _row(name: str, family: str, style: str, prompt: str, candidates: list[Candidate]) -> dict[str, Any]:
    return {
        "id": name,
        "family": family,
        "style": style,
        "prompt": prompt,
        "candidates": [c.text for c in candidates],
        "scores": [GRADES[c.kind] for c in candidates],
        "kinds": [c.kind for c in candidates],
        "aspects": {name: [c.aspects[name] for c in candidates] for name in candidates[0].aspects},
    }
