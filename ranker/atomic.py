"""Files and folders that appear complete or not at all: written beside their path, flushed to disk, renamed."""

from __future__ import annotations

import atexit
import glob
import hashlib
import os
import re
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final

from ranker.errors import OutputError


@contextmanager
def output_errors(path: str | Path) -> Iterator[None]:
    """Turn what the operating system says of writing ``path`` into an error of one line.

    Raises:
        OutputError: naming the path and the reason.
    """
    try:
        yield
    except (BrokenPipeError, OutputError):
        raise  # a pipe: the reader of a pipe has ended, as ``head`` does
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
    except Exception as error:
        if type(error).__name__ == "SafetensorError" and "os error" in str(error):
            raise OutputError(f"{path}: cannot be written ({str(error).rpartition(': ')[2]})") from error
        if isinstance(error, RuntimeError) and any(words in str(error) for words in TORCH_CANNOT_WRITE):
            raise OutputError(f"{path}: cannot be written (torch.save failed; is the disk full?)") from error
        raise


TORCH_CANNOT_WRITE: Final = ("PytorchStreamWriter failed", "iostream error", "inline_container")
"""What ``torch.save`` says where a file cannot be written; it does not say why."""

PARTIAL: Final = ".partial"
REPLACED: Final = ".replaced"

_drafts: set[Path] = set()
"""Drafts of this process that are not finished yet."""


def write_text(path: Path, text: str) -> None:
    """Write a small UTF-8 file in one step; a reader sees the old text or the new one, never a part.

    Half of a surrogate pair, as in texts that were cut within an emoji, is written as its escape.
    """
    with draft_file(path, flush=False) as draft:
        draft.write_text(text, encoding="utf-8", errors="backslashreplace")


def create_text(path: Path, text: str) -> bool:
    """Write a small UTF-8 file in one step unless it exists; of several processes one gets True, the others False."""
    draft = beside(path)
    try:
        with output_errors(path):
            draft.write_text(text, encoding="utf-8")
        os.link(draft, path)
    except FileExistsError:
        return False
    finally:
        discard(draft)
    return True


@contextmanager
def draft_file(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """A new path beside ``path``; its file is renamed to ``path`` when the block ends, or removed when it raises.

    With ``flush`` the file and its folder's entry are flushed to disk.

    Raises:
        OutputError: it cannot be written.
    """
    draft = beside(path)
    try:
        with output_errors(path):
            yield draft
            if flush:
                sync(draft)
            draft.replace(path)
            if flush and os.name == "posix":  # elsewhere a folder cannot be opened
                sync(path.parent)
    finally:
        discard(draft)


def draft_of(folder: Path) -> Path:
    """The path at which ``folder`` is written before ``replace_folder`` renames it."""
    return folder.with_name(f".{folder.name}{PARTIAL}")


@contextmanager
def draft_folder(folder: Path) -> Iterator[Path]:
    """A new folder beside ``folder``, which it replaces when the block ends; it is removed when the block raises.

    Raises:
        OutputError: it cannot be written.
    """
    draft = draft_of(folder)
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with output_errors(folder):
            yield draft
            replace_folder(draft, folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def replace_folder(draft: Path, folder: Path) -> None:
    """Flush ``draft`` to disk and rename it to ``folder``; a folder that is already there is removed afterwards."""
    for path in [*draft.rglob("*"), draft]:
        if path.is_file() and os.name == "posix":
            path.chmod(path.stat().st_mode | 0o666 & ~_umask())  # safetensors writes files for their owner only
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


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def beside(path: Path) -> Path:
    """A new hidden name beside ``path``, for what this process removes by ``discard``, or else when it ends."""
    draft = path.with_name(f".{path.name}.{_mark()}-{os.getpid()}.{uuid.uuid4().hex}")
    _drafts.add(draft)
    return draft


def discard(draft: Path) -> None:
    """Remove what is at a name of ``beside``, if anything is."""
    shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)
    _drafts.discard(draft)


@atexit.register
def _discard_all() -> None:
    """Remove drafts that a signal left: it may arrive between any two instructions, also while a draft is removed."""
    for draft in list(_drafts):
        if f"-{os.getpid()}." in draft.name:  # not those of the process that this one was forked from
            discard(draft)


def is_dead(draft: Path) -> bool:
    """Whether the name of a draft says that a process of this machine wrote it that has ended."""
    match = re.search(rf"\.{_mark()}-(\d+)\.[0-9a-f]{{32}}$", draft.name)
    return match is not None and not _runs(int(match[1]))


def remove_dead_drafts(path: Path) -> None:
    """Remove the drafts of ``path`` that killed processes of this machine have left."""
    for draft in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if is_dead(draft):
            shutil.rmtree(draft, ignore_errors=True) if draft.is_dir() else draft.unlink(missing_ok=True)


@contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """A new hidden folder beside ``path`` for the time of the block; those of killed processes are removed first."""
    remove_dead_drafts(path)
    folder = beside(path)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        discard(folder)


@cache
def machine() -> str:
    """The scope of process numbers: the machine since its last start, and on Linux the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return socket.gethostname()


@cache
def _mark() -> str:
    """``machine`` as a short part of a file's name."""
    return hashlib.sha256(machine().encode()).hexdigest()[:12]


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere a signal of 0 would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # of another user
    return True


def sync(path: Path) -> None:
    """Flush a file or a folder's entries to disk."""
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the drafts that a killed process left in ``folder``, and restore the folder that it was replacing."""
    for path in folder.glob(f".*{REPLACED}"):
        name = folder / path.name.removeprefix(".").removesuffix(REPLACED)
        if name.exists():
            shutil.rmtree(path)
        else:
            path.rename(name)
    for path in folder.glob(f".*{PARTIAL}"):
        shutil.rmtree(path)
