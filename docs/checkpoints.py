"""Writes ``docs/checkpoints.md``: the formats that are read and written, and what every broken checkpoint is told.

    python docs/checkpoints.py        # or: make docs

Tiny checkpoints of every format are made, broken in every way and loaded; the sentences are what loading them said.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # the makers of tiny checkpoints are the tests'

from ranker.checkpoints.detection import FORMATS  # noqa: E402
from ranker.checkpoints.formats.registry import READERS, WRITERS  # noqa: E402
from tests.checkpoints.layouts import BREAKAGES, MADE, outcome  # noqa: E402

PRODUCERS = {
    "HF sequence classification": (
        "TRL, RLHFlow, NeMo-RL, OpenAssistant, transformers",
        "`score` or `classifier`",
        "`hf`",
    ),
    "sentence-transformers CrossEncoder": ("sentence-transformers", "`classifier`", "`crossencoder`"),
    "HF token classification": ("verl, LLaMA-Factory v1, NeMo-RL's regression", "`score` with a bias", "no"),
    "OpenRLHF": ("OpenRLHF, `value_head` or `score`", "any name (`value_head_prefix`)", "`openrlhf`"),
    "LLaMA-Factory value head": ("LLaMA-Factory v0", "`v_head.summary` in a file of its own", "`llama-factory`"),
    "trlx": ("trlx: a raw state dict", "`v_head`", "no"),
    "LLM-Blender PairRM": ("PairRM, PairRM-hf, pair-ranker", "`head_layer.1`, `head_layer.4`", "`pairrm-hf`"),
    "ArmoRM": ("RLHFlow's ArmoRM", "`regression_layer`, `reward_transform_matrix`, `gating`", "`native` has its names"),
    "T5 (SteamSHP)": ("SteamSHP, any T5 or joined encoders", "its words A and B", "`hf`"),
    "PEFT adapter": (
        "peft, on any of the decoders and encoders above",
        "with the adapter, beside it, or its base's",
        "no",
    ),
}
SCORED = {
    "HF sequence classification": "first token, or last that is not padding",
    "sentence-transformers CrossEncoder": "first token",
    "HF token classification": "last of the mask",
    "OpenRLHF": "last of the mask",
    "LLaMA-Factory value head": "last of the mask",
    "trlx": "last before the end of text",
    "LLM-Blender PairRM": "three markers",
    "ArmoRM": "last; the gate the prompt's last",
    "T5 (SteamSHP)": "first word of the answer",
    "PEFT adapter": "as its base",
}

INTRODUCTION = """# Checkpoints

`ranker.load(path)`, and every command that takes a model, reads the formats below, from a folder or by a name on the
model hub. A head is never newly initialised. An incomplete checkpoint is refused in one line that names the tensor and
the repair. This file is written by `make docs` from checkpoints that are made, broken and loaded; a test fails when it
and the code differ.

    ranker inspect PATH_OR_NAME [--json]      what it is and whether it is complete; reads headers only, runs nothing
    ranker verify PATH [--against PATH] [--data rows.jsonl]
                                              loads it: tensors, head as in its file, padding, batches, sums, accuracy
    ranker convert SOURCE TARGET --to FORMAT  the same model where FORMAT's own loader gives the same scores
    ranker merge ADAPTER TARGET               an adapter and its base, in full precision, with the head

- Outputs are counted in the file. A configuration without `num_labels`, which transformers takes for two, is read with
  one output and written with `id2label` of one label.
- `--head-prefix NAME` names a head that has none of the known names; absent, the candidates in the file are listed.
- Pickles (`.bin`) are read only with `--allow-pickle`, and then tensors alone. Code that comes with a model is never
  run. Conversion always writes safetensors, in the precision in which every tensor was stored.
- Scores are raw. OpenRLHF's `mean` and `std` are kept in the configuration, and written again, not applied.
- Two classes give the log-odds of the second. More are aspects, whose mean is the score.
- Where padding is the end-of-text token, transformers scores the token before the end, and so does this package for
  its classifiers, with a warning. OpenRLHF and LLaMA-Factory score the end itself; converting them to `hf` or `native`
  gives them a padding token of its own, so that transformers does as well.
- `verify` writes `SHA256SUMS` beside a checkpoint that passed, and compares every byte with it from then on;
  `sha256sum --check SHA256SUMS` does too.

## Formats

| format | written by | the head | what is read | `convert --to` |
|---|---|---|---|---|
"""


def relative(text: str, folder: Path) -> str:
    """A message without the place where the checkpoint lay."""
    return text.replace(f"{folder}/", "").replace("|", "\\|")


def verdict(text: str) -> str:
    """What happened, in a word or two."""
    if text == "does not apply":
        return "–"
    return (
        "refused" if text.startswith("error: ") else "same scores" if text.startswith("read the same") else "read, said"
    )


def outcomes() -> dict[tuple[str, str], str]:
    """What is said of every format broken in every way."""
    said = {}
    for name in MADE:
        for breakage in BREAKAGES:
            with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                text = outcome(name, breakage, MADE[name](Path(folder)))
                said[name, breakage] = relative(str(text), Path(folder))
    return said


def row(name: str, text: str) -> str:
    """One line of the table of messages."""
    return f"| {name} | {text.removeprefix('error: ')} |"


def formats() -> str:
    """The table of formats; every reader and writer of the code is in it."""
    known = {known.name for known in FORMATS if not known.native}
    assert set(READERS) <= set(PRODUCERS) <= known
    assert all(any(f"`{to}`" in third for _, _, third in PRODUCERS.values()) for to in WRITERS)
    return "\n".join(
        f"| {name} | {by} | {head} | {SCORED[name]} | {to} |" for name, (by, head, to) in PRODUCERS.items()
    )


def document() -> str:
    """The whole file."""
    said = outcomes()
    lines = [INTRODUCTION + formats(), "", "## Broken checkpoints", "", "| format | " + " | ".join(BREAKAGES) + " |"]
    lines += ["|---" * (len(BREAKAGES) + 1) + "|"]
    lines += [f"| {name} | " + " | ".join(verdict(said[name, b]) for b in BREAKAGES) + " |" for name in MADE]
    for breakage in BREAKAGES:
        lines += ["", f"### {breakage[0].upper()}{breakage[1:]}", "", "| format | what is said |", "|---|---|"]
        lines += [row(name, said[name, breakage]) for name in MADE if said[name, breakage] != "does not apply"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from transformers.utils import logging

    logging.disable_progress_bar()
    (DOCS / "checkpoints.md").write_text(document(), encoding="utf-8")
