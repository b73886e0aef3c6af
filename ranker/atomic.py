"""Files and folders that appear whole or not at all: written beside their place, flushed to disk, renamed."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Final

PARTIAL: Final = ".partial"
REPLACED: Final = ".replaced"


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 file in one step; a reader sees the old text or the new one, never a part."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def draft_of(folder: Path) -> Path:
    """Where ``folder`` is written before ``replace_folder`` gives it its name."""
    return folder.with_name(f".{folder.name}{PARTIAL}")


def replace_folder(draft: Path, folder: Path) -> None:
    """Flush ``draft`` to disk and rename it to ``folder``; a folder that is already there is removed afterwards."""
    for path in [*draft.rglob("*"), draft]:
        if path.is_file() or os.name == "posix":  # elsewhere a folder cannot be opened
            sync(path)
    replaced = folder.with_name(f".{folder.name}{REPLACED}")
    shutil.rmtree(replaced, ignore_errors=True)
    if folder.exists():
        folder.rename(replaced)
    draft.rename(folder)
    if os.name == "posix":
        sync(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to disk."""
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the drafts that a killed process left in ``folder``; what it was replacing gets its name back."""
    for path in folder.glob(f".*{REPLACED}"):
        name = folder / path.name.removeprefix(".").removesuffix(REPLACED)
        if name.exists():
            shutil.rmtree(path)
        else:
            path.rename(name)
    for path in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(path)
