"""Writes the table of evidence in ``README.md`` from the files of figures beside the docs.

python docs/readme.py            # or: make docs
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
PAGE = DOCS.parent / "README.md"
BEGIN, END = "<!-- evidence: written by docs/readme.py -->", "<!-- end of evidence -->"
HERE = "https://github.com/ranker-toolkit/ranker-toolkit/blob/main/docs/"


def figures(name: str) -> dict[str, Any]:
    """The figures in a file of this folder."""
    content: dict[str, Any] = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    return content


def rows() -> list[tuple[str, str, str]]:
    """What was counted, the figure with its n, and where it is explained."""
    same, kills, steady = figures("compatibility"), figures("kills"), figures("steadiness")
    load, soak = figures("overload")["10x"], figures("soak")
    equal, n = (sum(row[key] for row in same["rows"]) for key in ("equal", "n"))
    signals = {name: sum(part["kills"].values()) for name, part in kills.items()}
    bad = sum(part[key] for part in kills.values() for key in ("lost", "doubled", "leftovers", "wrong_codes"))
    finished, alike = (sum(part[key] for part in kills.values()) for key in ("results", "equal"))
    int8 = [model for model in steady.values() if model["precision"] == "int8"]
    fp32 = [model for model in steady.values() if model["precision"] == "fp32"]
    return [
        (
            "scores of checkpoints that other libraries wrote, beside their own code",
            f"{equal} of {n} equal, {len(same['rows'])} producers and forms",
            "compatibility.md",
        ),
        (
            "ids of conversations beside `apply_chat_template`",
            f"{same['ids']['equal']:,} of {same['ids']['rows']:,} equal, {same['ids']['templates']} templates",
            "compatibility.md",
        ),
        (
            "interrupts at random moments",
            f"{', '.join(f'{count} of `{name}`' for name, count in signals.items())}: {bad} lost, doubled or left "
            f"behind; {alike} of {finished} results equal to the byte",
            "results.md#interrupts",
        ),
        (
            "scores alone and in any batch, other threads, processes and load",
            f"int8: {sum(map(differing, int8))} of {sum(model['answers'] for model in int8):,} answers differ; fp32: "
            f"by {max(map(largest, fp32)):.0e} logits at most (n = {sum(model['answers'] for model in fp32):,})",
            "reliability.md#scores",
        ),
        (
            "a server at 10 times its load",
            f"accepted requests: p99 {load['accepted_p99_seconds']:.1f} s; the others get 429 with `Retry-After`",
            "reliability.md#server",
        ),
        (
            f"a server for {soak['minutes']:.0f} minutes, wrong bodies and clients that leave among the requests",
            f"{soak['rss_mib']['third']:.0f} MiB after a third, {soak['rss_mib']['last']:.0f} MiB at the end; "
            f"{soak['descriptors']['after']} open files after it",
            "reliability.md#server",
        ),
    ]


def conditions(model: dict[str, Any]) -> list[dict[str, Any]]:
    """The conditions under which a model was compared with its scores alone."""
    return [value for value in model.values() if isinstance(value, dict)]


def differing(model: dict[str, Any]) -> int:
    """Answers that differ in any condition."""
    return max(condition["answers_that_differ"] for condition in conditions(model))


def largest(model: dict[str, Any]) -> float:
    """The largest difference in any condition."""
    return max(condition["largest_difference"] for condition in conditions(model))


def document() -> str:
    """The page with its table written anew."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    lines = [f"| {what} | {figure} ([figures]({HERE}{where})) |" for what, figure, where in rows()]
    table = "\n".join(["| counted | figure |", "|---|---|", *lines])
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    PAGE.write_text(document(), encoding="utf-8")
