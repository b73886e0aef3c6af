"""Writes the table of ``docs/install.md``: which versions one environment gets beside the libraries of others.

python docs/environments.py            # from docs/environments.json; or: make docs
python docs/environments.py --record   # asks the package index again, with uv
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
FIGURES = DOCS / "environments.json"
PAGE = DOCS / "install.md"
BEGIN, END = "<!-- environments: written by docs/environments.py -->", "<!-- end of environments -->"
BESIDE = ("trl", "openrlhf", "vllm", "verl", "llamafactory", "distilabel", "ray[data]", "datatrove")
EXTRAS = ("cpu", "train,cpu")
PYTHON = "3.12"


def resolved(*wanted: str) -> dict[str, str] | None:
    """The newest versions that fit together; None where none do."""
    uv = shutil.which("uv") or str(Path(sys.executable).parent / "uv")
    command = [uv, "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", PYTHON, "-"]
    done = subprocess.run(command, input="\n".join(wanted), capture_output=True, text=True, timeout=600)
    return dict(re.findall(r"^([\w.-]+)==(\S+)", done.stdout, re.MULTILINE)) if done.returncode == 0 else None


def record() -> dict[str, Any]:
    """What the package index says today."""
    rows = []
    for beside in BESIDE:
        name = beside.partition("[")[0]
        newest = (resolved(beside) or {}).get(name)
        row: dict[str, Any] = {"name": beside, "newest": newest}
        for extras in EXTRAS:
            versions = resolved(f"ranker-toolkit[{extras}] @ {DOCS.parent.as_uri()}", beside)
            row[extras] = versions and {
                key: versions[key] for key in (name, "torch", "transformers") if key in versions
            }
        rows.append(row)
    return {"python": PYTHON, "date": time.strftime("%Y-%m-%d"), "rows": rows}


def table(figures: dict[str, Any]) -> str:
    """The figures as a table, with what they were recorded on."""
    lines = [
        f"Newest versions that one environment gets, as `uv` resolved them for Python {figures['python']} on "
        f"{figures['date']}:",
        "",
        "| beside | its newest version | with `[cpu]` (scoring) | with `[train,cpu]` |",
        "|---|---|---|---|",
    ]
    for row in figures["rows"]:
        name = row["name"].partition("[")[0]
        cells = [fits(row[extras], name, row["newest"]) for extras in EXTRAS]
        lines.append(f"| {row['name']} | {row['newest']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def fits(versions: dict[str, str] | None, name: str, newest: str | None) -> str:
    """A cell: whether the newest version fits, and beside which torch and transformers."""
    if versions is None:
        return "nothing fits"
    if versions.get(name) != newest:
        return f"only {name} {versions.get(name)}: use two environments"
    beside = ", ".join(f"{key} {versions[key]}" for key in ("transformers", "torch") if key in versions)
    return f"yes ({beside})" if beside else "yes"


def document() -> str:
    """The page with its table written anew."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    return f"{before}{BEGIN}\n{table(figures)}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true")
    if parser.parse_args().record:
        FIGURES.write_text(json.dumps(record(), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(document(), encoding="utf-8")
