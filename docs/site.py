"""A hook of mkdocs: the repository's own pages become pages of the site, and links follow them.

make site
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
REPOSITORY = "https://github.com/ranker-toolkit/ranker-toolkit/blob/main/"
PAGES = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "data/README.md": "sample.md",
    "examples/README.md": "examples.md",
}
"""Pages of the repository outside this folder, and where the site has them."""

PICTURES = "https://raw.githubusercontent.com/ranker-toolkit/ranker-toolkit/main/"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")


def on_files(files: Any, config: Any) -> Any:
    """Add the repository's pages."""
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text(encoding="utf-8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """The page with links to pages of the site where there are some, else to the repository."""
    path = page.file.src_uri
    sources = {target: source for source, target in PAGES.items()}
    place = sources.get(path, f"docs/{path}")
    return LINK.sub(lambda link: link[1] + rewritten(link[2], place, path) + link[3], markdown)


def rewritten(link: str, place: str, page: str) -> str:
    """A link of the file at ``place`` in the repository, for the ``page`` of the site."""
    if link.startswith((REPOSITORY, PICTURES)):
        target = link.removeprefix(REPOSITORY).removeprefix(PICTURES)
    elif re.match(r"[a-z]+:|#", link):
        return link
    else:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
    path, hash_sign, anchor = target.partition("#")
    if path in PAGES:
        path = PAGES[path]
    elif path.startswith("docs/") and not path.endswith(".py"):
        path = path.removeprefix("docs/")
    else:
        return REPOSITORY + target
    return posixpath.relpath(path, posixpath.dirname(page) or ".") + hash_sign + anchor
