"""Writes figures into the pages, from the files of figures beside the docs.

A page has ``<!-- figure: NAME -->`` before the text and ``<!-- end -->`` after it; NAME is a function of
a module of ``figure_tables``.

python docs/figures.py            # or: make docs
"""

from __future__ import annotations

import re

from figure_tables import DOCS, accuracy, counts, gpu, speed, training

PARTS = (accuracy, counts, gpu, speed, training)
PAGES = (
    DOCS.parent / "README.md",
    *(DOCS / f"{page}.md" for page in ("results", "reliability", "gpu", "ranking", "comparison-graphs")),
)
PLACE = re.compile(r"(<!-- figure: (\w+) -->)(.*?)(<!-- end -->)", re.DOTALL)


def figure(name: str) -> str:
    """The text of a figure."""
    (makes,) = (getattr(part, name) for part in PARTS if hasattr(part, name))
    text: str = makes()
    return text


def written(page: str) -> str:
    """A page with its figures written anew."""
    return PLACE.sub(lambda place: f"{place[1]}{figure(place[2])}{place[4]}", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(written(path.read_text(encoding="utf-8")), encoding="utf-8")
