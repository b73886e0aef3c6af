"""Writes ``docs/schemes.md``, the table of datasets in ``docs/training.md`` and that of schemes in ``docs/results.md``.

    python docs/schemes.py            # or: make docs

They come from the recipes' headers, the code's tables and the figures of the slow tests.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from ranker.config import MODEL_TYPES, RECIPES, RunConfig, load_config, recipes
from ranker.config.models import CUSTOM, ArmoRMConfig, PairwiseConfig, SteamSHPConfig
from ranker.data.known_datasets import HUB
from ranker.models.backbones import DECODERS
from ranker.models.backbones import FAMILIES as PAIRWISE
from ranker.models.pointwise import HEADS
from ranker.models.steamshp import FAMILIES as STEAMSHP

DOCS = Path(__file__).parent
FIGURES = DOCS / "learned.json"
TABLE = "| name | dataset | licence | training split, held out | columns read |\n|---|---|---|---|---|\n"
RESULTS = "| recipe | held-out accuracy | n | best baseline |\n|---|---|---|---|\n"
FIELDS = ("Scheme", "Formula", "Paper", "Reproduces", "Data", "Launch")

INTRODUCTION = """# Schemes

Every reward-model scheme is a recipe: `ranker train NAME`, or `make train-NAME` from a clone. Each trains, saves,
reloads with the same scores, evaluates, exports to one `model.onnx` and scores. This file is written by `make docs`; a
test fails when it and the code differ.

*Held-out accuracy* is what the recipe's slow test (`make test-all ONLY=slow`) reached, with its 95 % interval, beside
the best of the baselines random, longer wins and bag of words on the same rows of the sample. Encoders start from the
packaged MiniLM, decoders from random weights of three layers, because the tests use no model hub: the figures prove
that a scheme learns and do not compare schemes. `armorm` starts from a trained `encoder-bradley-terry`, `steamshp` from
two MiniLMs joined to an encoder-decoder, whose cross-attention and first words are new.
"""


def header(name: str) -> dict[str, str]:
    """The fields of a recipe's header comment."""
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    comment = [line[1:].strip() for line in lines if line.startswith("#")]
    fields: dict[str, str] = {"title": comment[0]}
    last = "title"
    for line in comment[1:]:
        field = re.match(rf"({'|'.join(FIELDS)}):\s*(.*)", line)
        if field:
            last = field[1]
            fields[last] = field[2]
        elif line and last != "Launch":
            fields[last] += f" {line}"
    return fields


def backbones(config: RunConfig) -> str:
    """The families that a recipe's model can have."""
    if isinstance(config.model, SteamSHPConfig):
        return ", ".join(STEAMSHP)
    if isinstance(config.model, PairwiseConfig):
        return ", ".join(PAIRWISE)
    if isinstance(config.model, ArmoRMConfig):
        return ", ".join([*DECODERS, *HEADS])
    return ", ".join(DECODERS if config.output_dir.startswith("runs/decoder") else HEADS)


def figure(name: str, figures: dict[str, dict]) -> str:
    """Accuracy with interval and count, and the best baseline."""
    if name not in figures:
        return "not shown here"
    a, best = figures[name]["accuracy"], figures[name]["baseline"]
    return (
        f"{a['value']:.3f} [{a['low']:.3f}, {a['high']:.3f}] (n={a['n']}); "
        f"{best['name'].replace('_', ' ')} {best['value']:.3f} [{best['low']:.3f}, {best['high']:.3f}]"
    )


def document() -> str:
    """The whole file."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.is_file() else {}
    lines = [
        INTRODUCTION,
        "| scheme | recipe | formula | paper | backbones | held-out accuracy; best baseline |",
        "|---|---|---|---|---|---|",
    ]
    for name in recipes():
        fields, config = header(name), load_config(name)
        formula = fields["Formula"].replace("|", "\\|")
        recipe = f"[`{name}`](../ranker/training/recipes/{name}.yaml)"
        cells = (fields["Scheme"], recipe, formula, fields["Paper"], backbones(config), figure(name, figures))
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## What each reads, and what it reproduces", "", "| recipe | data | reproduces |", "|---|---|---|"]
    for name in recipes():
        fields = header(name)
        lines.append(f"| `{name}` | {fields['Data']} | {fields['Reproduces']} |")
    lines += ["", "## Losses", "", "`training.loss` may be any loss of the recipe's kind of model:", ""]
    lines += [
        f"- `model.type: {name}`: {', '.join(f'`{loss}`' for loss in cls.losses if loss != CUSTOM)}"
        for name, cls in MODEL_TYPES.items()
    ]
    return "\n".join(lines) + "\n"


def with_figures(results: str) -> str:
    """The results with the table of all schemes as the slow tests left it."""
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    rows = []
    for name, figure_of in figures.items():
        shares = [figure_of["accuracy"], figure_of["baseline"]]
        cells = [f"{s['value']:.3f} [{s['low']:.3f}, {s['high']:.3f}]" for s in shares]
        rows.append(f"| `{name}` | {cells[0]} | {figure_of['accuracy']['n']} | {cells[1]} |")
    head, rest = results.split(RESULTS, 1)
    return f"{head}{RESULTS}{chr(10).join(rows)}\n\n{rest.split(chr(10) * 2, 1)[1]}"


def datasets_table() -> str:
    """The known datasets of the hub."""
    rows = []
    for name, known in HUB.items():
        path = f"[{known.path}](https://huggingface.co/datasets/{known.path})"
        splits = f"{known.split}, {known.held_out or 'none'}" + (f" ({known.config})" if known.config else "")
        rows.append(f"| `{name}` | {path} | {known.licence} | {splits} | {', '.join(known.shape.columns)} |")
    return "\n".join(rows)


def with_datasets(guide: str) -> str:
    """The training guide with its table of datasets as the code has it."""
    head, rest = guide.split(TABLE, 1)
    return f"{head}{TABLE}{datasets_table()}\n\n{rest.split(chr(10) * 2, 1)[1]}"


if __name__ == "__main__":
    guide = DOCS / "training.md"
    guide.write_text(with_datasets(guide.read_text(encoding="utf-8")), encoding="utf-8")
    (DOCS / "schemes.md").write_text(document(), encoding="utf-8")
    results = DOCS / "results.md"
    results.write_text(with_figures(results.read_text(encoding="utf-8")), encoding="utf-8")
