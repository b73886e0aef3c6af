"""Writes ``docs/checkpoints.md``: how to score with a checkpoint of another trainer, and every format that is read.

    python docs/checkpoints.py        # or: make docs

The tables come from the registry of formats, the report from a tiny checkpoint, the refusals from
``tests/checkpoints/messages.txt``, which the tests compare with what the code says.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))  # the tiny checkpoint and the messages are the tests'

from ranker.checkpoints.formats.registry import FORMATS, TARGETS, WRITERS  # noqa: E402
from ranker.checkpoints.inspection import inspect  # noqa: E402
from tests.checkpoints import messages  # noqa: E402
from tests.checkpoints.layouts import openrlhf  # noqa: E402

START = """# Checkpoints

You have a checkpoint of another trainer and want to score with it. Look at it first. `ranker inspect` reads the headers
of the files. It loads no weights and runs no code of the checkpoint.

    $ ranker inspect PATH_OR_NAME             # PATH_OR_NAME: a folder, or a name on the model hub
    $ ranker inspect PATH_OR_NAME --json

From Python:

```python
>>> from ranker.checkpoints.hub import inspect_checkpoint
>>> print(inspect_checkpoint("runs/openrlhf"))
{report}
```

These two problems concern transformers, which would start a new head in silence. `ranker.load` counts the outputs in
the file and reads the head by its own name. If the report says `read by ranker.load`, score with it:

```python
import ranker

model = ranker.load("runs/openrlhf")
scores = model.score("Name the capital of France.", ["Paris.", "Lyon."])
```

Every command that takes a model takes this checkpoint too. A head is never newly initialised: if a tensor is missing,
the checkpoint is refused, and the error names the tensor and the repair.

## Formats

The first row that matches counts.

| format | written by | recognised by | the head | what is scored | `convert --to` |
|---|---|---|---|---|---|
{foreign}

Our own folders:

| format | written by | recognised by | the head | what is scored | `convert --to` |
|---|---|---|---|---|---|
{native}

Not read: {unreadable}.

How they are read:

- **Outputs are counted in the file.** transformers takes a configuration without `num_labels` for two outputs. Here it
  has as many as the head has rows. `ranker convert` writes `id2label` with that many labels.
- **Two outputs** are reject and accept; the score is the log-odds of the second.
- **More outputs** are aspects; the score is their mean.
- **Scores are raw.** OpenRLHF's `mean` and `std` stay in the configuration and are written again. They are not applied.
- **A head of an unusual name**: name it with `--head-prefix NAME`. Without it, the error lists the candidates.
- **Pickles** (`.bin`) are read only with `--allow-pickle`, and then only their tensors.
- **Padding that is the end-of-text token**: transformers scores the token before the end. So does this package for
  classifiers of transformers, with a warning. OpenRLHF and LLaMA-Factory score the end itself.

## Convert

    $ ranker convert SOURCE TARGET --to FORMAT

`FORMAT` is one of the names below; the default is `native`. The new folder scores like the source: it is read again and
compared before it takes its name. Weights are safetensors, in the precision in which every tensor was stored. What the
format cannot keep is printed.

| `--to` | what you get |
|---|---|
{writers}

If padding was the end-of-text token, `hf` and `native` give a decoder a padding token of its own, so that transformers
scores the same token.

Merge an adapter and its base, in full precision, with the head:

    $ ranker merge ADAPTER TARGET

## Verify

    $ ranker verify PATH
    $ ranker verify PATH --against OTHER --data rows.jsonl

It loads the checkpoint. It compares the ids of 13 conversations with transformers' `apply_chat_template` (of encoders,
with the tokenizer's pairs), and the scores with transformers' own class, where it has one. It checks that all tensors
are there and finite, that the head is equal to its file, and that padding and batch size do not change the scores.
`--against` compares the scores with another checkpoint's. `--data`
computes the accuracy on labelled rows. A checkpoint that passes gets a file `SHA256SUMS`. From then on, `verify`
compares every byte with it, and so does `sha256sum --check SHA256SUMS`.

## Refusals

What you may see, and what to do:

{refusals}

`tests/checkpoints/messages.txt` has the message of every format, broken in every way.

This page is written by `make docs`. A test fails if it and the code differ.
"""

WRITTEN = {
    "native": "our own folder, which `ranker.load` reads and `ranker train` continues with",
    "hf": "`AutoModelForSequenceClassification` or `AutoModelForSeq2SeqLM` reads it",
    "crossencoder": "`CrossEncoder(path).predict` gives the same raw logits",
    "openrlhf": 'OpenRLHF\'s `get_llm_for_sequence_regression(path, "reward")` reads it',
    "llama-factory": "LLaMA-Factory's `stage: rm` reads it",
    "pairrm-hf": "PairRM-hf's `DebertaV2PairRM.from_pretrained` reads it",
}
"""What each target is for."""

REFUSALS = (
    ("The head is missing", "OpenRLHF", "head missing"),
    ("The head has a name that no trainer uses", "HF sequence classification (decoder)", "head under another name"),
    ("A file is truncated", "HF sequence classification (encoder)", "truncated file"),
    ("The head is empty: ZeRO-3 weights were not gathered", "HF sequence classification (decoder)", "empty tensor"),
    ("The tokenizer is another model's", "LLM-Blender PairRM", "other vocabulary"),
)
"""One of each kind: what happened, the format, how it was broken."""


def formats(native: bool) -> str:
    """The table of the formats that are read: ours, or all others."""
    rows = []
    for known in FORMATS:
        if known.readable and known.native == native:
            about = known.about
            target = about.converted if known.target is None else f"`{known.target}`"
            rows.append((known.name, about.producers, about.recognised_by, about.head, about.scored, target))
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def report() -> str:
    """What ``inspect`` says of a tiny checkpoint as OpenRLHF leaves it."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = openrlhf(Path(folder)).folder
        return str(inspect(checkpoint)).replace(str(checkpoint), "runs/openrlhf")


def refusals() -> str:
    """A heading and the message of each."""
    known = messages.read()
    return "\n\n".join(f"**{title}** ({name}):\n\n> {known[name, breakage]}" for title, name, breakage in REFUSALS)


def document() -> str:
    """The whole page."""
    assert {*WRITTEN} == {*WRITERS}
    return START.format(
        report=report(),
        foreign=formats(native=False),
        native=formats(native=True),
        unreadable=", ".join(f"{known.name} ({known.about.recognised_by})" for known in FORMATS if not known.readable),
        writers="\n".join(f"| `{target}` | {WRITTEN[target]} |" for target in TARGETS),
        refusals=refusals(),
    )


if __name__ == "__main__":
    from transformers.utils import logging

    logging.disable_progress_bar()
    (DOCS / "checkpoints.md").write_text(document(), encoding="utf-8")
