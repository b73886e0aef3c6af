"""``ranker inspect``: what a checkpoint is, whether it is whole, and how to repair it."""

from __future__ import annotations

import json

from rich.console import Console

from ranker.commands.tables import show
from ranker.extras import require


def run(path: str, *, as_json: bool, head_prefix: str | None, allow_pickle: bool) -> None:
    """Print the facts as a table or as JSON; problems come last, each with its repair.

    Raises:
        CheckpointError: there is nothing to inspect.
    """
    require("safetensors")
    from ranker.checkpoints.hub import inspect_checkpoint

    facts = inspect_checkpoint(path, head_prefix=head_prefix, allow_pickle=allow_pickle)
    del facts["tensors"]  # thousands of names
    console = Console()
    if as_json:
        console.out(json.dumps(facts, indent=2, ensure_ascii=False), highlight=False)
        return
    rows = [
        ("format", f"{facts['format']} ({'read by ranker.load' if facts['readable'] else 'not read by ranker.load'})"),
        ("backbone", str(facts["backbone"])),
        ("head", "none" if facts["head"] is None else f"{facts['head']['name']} {facts['head']['shape']}"),
        ("outputs", f"{facts['outputs']} ({', '.join(facts['labels']) or 'unnamed'})"),
        ("head reads", facts["scored"]),
        ("parameters", f"{facts['parameters']:,} in {facts['shards']} files ({_counts(facts['dtypes'])})"),
        ("normalisation", str(facts["normalisation"] or "none")),
        ("tokenizer", ", ".join(f"{name} {value}" for name, value in facts["tokenizer"].items())),
        *(("problem", f"{problem['what']}. Repair: {problem['repair']}") for problem in facts["problems"]),
    ]
    show(console, path, rows if facts["problems"] else [*rows, ("problems", "none")])


def _counts(dtypes: dict[str, int]) -> str:
    return ", ".join(f"{count} tensors {name}" for name, count in dtypes.items()) or "no tensors"
