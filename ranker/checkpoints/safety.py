"""Checkpoints from strangers: what their files may ask for, before anything is built from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ranker.errors import CheckpointError, RankerError, one_line

MEBI: Final = 1 << 20
SIZES: Final[Mapping[str, int]] = {
    "config.json": MEBI,
    "adapter_config.json": MEBI,
    "tokenizer_config.json": 16 * MEBI,
    "special_tokens_map.json": 16 * MEBI,
    "chat_template.jinja": MEBI,
    "tokenizer.json": 256 * MEBI,
}
"""Most bytes of a file; of other JSON files ``OTHER``."""

OTHER: Final = 64 * MEBI
READ: Final = (".json", ".safetensors", ".bin", ".jinja")
"""Ends of the names of files that are read."""

COUNTS: Final = re.compile(r"layer|expert|depth|stage")
NO_COUNTS: Final = re.compile(r"size|dim|_id|index|token|interval|freq|norm|drop|prob|std")
"""Parts of the names of settings that say how many modules a model has, and of those that do not."""

LEAST_MODULES: Final = 1000
"""Modules that any configuration may ask for; beyond, there must be as many tensors."""

LABELS: Final = 65_536
LARGEST: Final = 1 << 31
KERNELS: Final = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "paged_attention")
"""Names of attention that transformers knows; others are fetched from the hub as code."""

KERNEL_SETTING: Final = re.compile(r"^_?(attn|experts)_implementation")
COPY_AGAIN: Final = "copy the checkpoint again from its source"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: a file that is too large, no regular one, or holds no JSON object.
    """
    check_file(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError, OSError) as error:
        raise CheckpointError(f"{path}: not valid JSON ({one_line(error)}); {COPY_AGAIN}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got {type(values).__name__}; {COPY_AGAIN}")
    return values


def check_file(path: Path) -> None:
    """Refuse what would be read for ever, or fill the memory.

    Raises:
        CheckpointError: a pipe or device, or a text file that is too large.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise CheckpointError(f"{path}: expected a regular file, found a pipe or a device; {COPY_AGAIN}")
    most = SIZES.get(path.name, OTHER)
    if path.suffix in (".json", ".jinja") and path.is_file() and path.stat().st_size > most:
        raise CheckpointError(f"{path}: has {path.stat().st_size} bytes, expected at most {most}; {COPY_AGAIN}")


def check_folder(folder: Path) -> None:
    """Refuse a folder whose files or whose configuration ask for what no checkpoint needs.

    Raises:
        CheckpointError: naming the file and the setting.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.suffix in READ:
            check_file(path)
    for name in ("config.json", "adapter_config.json"):
        if (folder / name).is_file():
            check_settings(folder / name, read_json(folder / name), _tensors(folder))


def _tensors(folder: Path) -> int:
    """How many tensors the safetensors files of a folder hold; damaged ones are refused where they are read."""
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, framework="numpy") as tensors:
                count += len(tensors.keys())
        except Exception:
            continue
    return count


def check_settings(path: Path, values: Mapping[str, Any], tensors: int) -> None:
    """Refuse settings that would build a model far larger than its weights, or run code.

    Args:
        path: the configuration's file, for messages.
        values: its settings.
        tensors: how many tensors the weights hold.

    Raises:
        CheckpointError: naming the setting.
    """
    modules = max(LEAST_MODULES, tensors)
    for name, value in _settings(values):
        if KERNEL_SETTING.match(name) and isinstance(value, str) and value not in KERNELS:
            raise CheckpointError(
                f"{path}: {name} names '{value:.60}', which would be fetched as code; remove it, or take one of "
                f"{', '.join(KERNELS)}"
            )
        if isinstance(value, bool) or not isinstance(value, int):
            continue
        is_count = COUNTS.search(name) and not NO_COUNTS.search(name)
        most = LABELS if name == "num_labels" else modules if is_count else LARGEST
        if abs(value) > most:
            number = value if abs(value) < 10**20 else "very large"
            raise CheckpointError(
                f"{path}: {name} is {number}, expected at most {most}; its weights hold {tensors} tensors, so "
                "config.json describes another model"
            )
    if isinstance(labels := values.get("id2label"), dict) and len(labels) > LABELS:
        raise CheckpointError(f"{path}: id2label has {len(labels)} labels, expected at most {LABELS}")


def _settings(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All settings by name, those of parts of a configuration too."""
    waiting = [values]
    while waiting:
        for name, value in waiting.pop().items():
            if isinstance(value, dict):
                waiting.append(value)
            else:
                yield str(name), value


@contextmanager
def foreign(folder: Path) -> Iterator[None]:
    """Within the block, what libraries raise on a stranger's files is an error of this package, in a line.

    Raises:
        CheckpointError: in the place of what is no ``RankerError``.
    """
    try:
        yield
    except RankerError:
        raise
    except Exception as error:  # configurations and tokenizers fail in any way
        raise CheckpointError(
            f"{folder}: cannot be read as a checkpoint ({type(error).__name__}: {one_line(error)}); {COPY_AGAIN}"
        ) from error
