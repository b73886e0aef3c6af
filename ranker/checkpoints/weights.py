"""The weight files of a checkpoint: which they are, what is in them, under which names. Pickles only when asked for."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from zipfile import is_zipfile

from safetensors import safe_open

from ranker.checkpoints.safety import COPY_AGAIN, read_json
from ranker.errors import CheckpointError
from ranker.extras import require

WEIGHTS: Final = "model.safetensors"
INDEX: Final = "model.safetensors.index.json"
PICKLE: Final = "pytorch_model.bin"
PICKLE_INDEX: Final = "pytorch_model.bin.index.json"
MOST_SHARDS: Final = 10_000
BUFFERS: Final = ("position_ids", "rotary_emb.inv_freq", ".attn.bias", ".attn.masked_bias")
"""Ends of names that older libraries saved and newer ones compute."""

WRAPPED: Final = re.compile(r"(?:module\.|_orig_mod\.|_fsdp_wrapped_module\.)+")
"""What data-parallel training, torch.compile and FSDP put before the names of all tensors."""

LANGUAGE_HEAD: Final = "lm_head."
"""The words of a language model, which some trainers save with a reward model."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a weight file says of one tensor."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class KeyMap:
    """From the names in a file to the model's: beginnings that change, and beginnings that no ranker reads.

    ``keys`` is the two-way table of a format: reading replaces its keys by its values, writing its values by its keys.
    ``wrapper`` is what data-parallel training or torch.compile put before every name. ``folders`` is what the model's
    names have before those of the files of a folder, by the folder's name: "" is the checkpoint's own.
    """

    keys: Mapping[str, str]
    dropped: tuple[str, ...] = ()
    wrapper: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)

    def model_name(self, stored: str, file: Path | None = None) -> str | None:
        """The model's name of a stored tensor, None where it is not read."""
        stored = stored.removeprefix(self.wrapper)
        if stored.startswith(self.dropped or ("\0",)):
            return None
        return self._before(file) + _renamed(stored, self.keys)

    def stored_name(self, name: str) -> str:
        """The stored name of a tensor of the model."""
        folder = next((folder for folder, before in self.folders.items() if name.startswith(before)), "")
        name = name.removeprefix(self.folders.get(folder, ""))
        shown = self.wrapper + _renamed(name, {ours: theirs for theirs, ours in self.keys.items()})
        return f"{folder}/{shown}" if folder else shown

    def _before(self, file: Path | None) -> str:
        if not self.folders or file is None:
            return ""
        return self.folders.get(file.parent.name, self.folders.get("", ""))


def _renamed(name: str, keys: Mapping[str, str]) -> str:
    old = next((old for old in keys if name == old or name.startswith(f"{old}.")), None)
    return name if old is None else keys[old] + name.removeprefix(old)


def weight_files(folder: Path, *, allow_pickle: bool = False, extra: Sequence[str] = ()) -> list[Path]:
    """The files that hold the weights: one, or the shards that the index names; then ``extra``.

    Raises:
        CheckpointError: one of them is not there, or they are pickles and those were not asked for.
    """
    single, index = folder / WEIGHTS, folder / INDEX
    pickled = (
        not single.is_file() and not index.is_file() and any((folder / n).is_file() for n in (PICKLE, PICKLE_INDEX))
    )
    if pickled and not allow_pickle:
        raise CheckpointError(
            f"{folder}: its weights are a pickle ({PICKLE}), which can run code when it is loaded; if you trust its "
            "source, read it (weights only) with --allow-pickle"
        )
    if pickled:
        single, index = folder / PICKLE, folder / PICKLE_INDEX
    shards = shards_of(index).values() if index.is_file() else [single.name]
    files = [folder / name for name in (*sorted(set(shards)), *extra)]
    for file in files:
        if not file.is_file():
            raise CheckpointError(f"{folder}: expected {file.name}, found none; is the checkpoint complete?")
        if file.suffix != ".safetensors" and not allow_pickle:
            raise CheckpointError(
                f"{file}: a pickle, which can run code when it is loaded; if you trust its source: --allow-pickle"
            )
    return files


def shards_of(index: Path) -> dict[str, str]:
    """The shard of every tensor that an index names.

    Raises:
        CheckpointError: no index of files that lie beside it.
    """
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise CheckpointError(f"{index}: not a valid index of shards (no weight_map of file names); {COPY_AGAIN}")
    if len(set(shards.values())) > MOST_SHARDS:
        raise CheckpointError(f"{index}: not a valid index of shards (more than {MOST_SHARDS} files); {COPY_AGAIN}")
    outside = next((name for name in set(shards.values()) if Path(name).name != name or name in (".", "..")), None)
    if outside is not None:
        raise CheckpointError(f"{index}: names '{outside:.100}', which is no file beside it; {COPY_AGAIN}")
    return shards


def digest(folder: Path) -> str:
    """SHA-256 of all weight files of a folder, one after the other; of one file it is that file's own."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".bin")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                total.update(block)
    return total.hexdigest()


def headers(file: Path) -> dict[str, Header]:
    """Shape and type of every tensor of a file; of safetensors without reading the weights.

    Raises:
        CheckpointError: the file is damaged or truncated.
    """
    with _opened(file):
        if file.suffix != ".safetensors":
            return {n: Header(tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in _pickle(file).items()}
        with safe_open(file, framework="numpy") as tensors:
            slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118
            return {name: Header(tuple(part.get_shape()), str(part.get_dtype())) for name, part in slices.items()}


def read(files: Sequence[Path], names: KeyMap) -> dict[str, Any]:
    """All tensors of some files (torch), under the model's names, in the precision in which they are stored.

    Raises:
        CheckpointError: a file is damaged or truncated.
    """
    renamed: dict[str, Any] = {}
    for file in files:
        with _opened(file):
            safe = file.suffix == ".safetensors"
            tensors = require("safetensors.torch").load_file(file) if safe else _pickle(file)
        renamed |= {
            name: tensor for stored, tensor in tensors.items() if (name := names.model_name(stored, file)) is not None
        }
    return renamed


def rows(files: Sequence[Path], name: str, numbers: Sequence[int]) -> Any:
    """Some rows of a tensor (torch, fp32), without reading the others; None where no file has it.

    Raises:
        CheckpointError: a file is damaged, or has fewer rows.
    """
    torch = require("torch")
    for file in files:
        if name not in headers(file):
            continue
        count = headers(file)[name].shape[0]
        if max(numbers) >= count:
            raise CheckpointError(f"{file}: tensor '{name}' has {count} rows, and row {max(numbers)} is asked for")
        with _opened(file):
            if file.suffix != ".safetensors":
                return _pickle(file)[name][list(numbers)].float()
            with safe_open(file, framework="pt") as tensors:
                part = tensors.get_slice(name)
                return torch.stack([part[number] for number in numbers]).float()
    return None


def read_names(names: KeyMap, files: Sequence[Path], wanted: Collection[str]) -> tuple[KeyMap, tuple[str, ...]]:
    """The names with what a checkpoint has besides: a wrapper around all of them, and a language model's head.

    Args:
        names: those of the format.
        files: the checkpoint's.
        wanted: the model's names.

    Returns:
        The names, and notes on what is read differently.
    """
    stored = [name for file in files for name in headers(file)]
    notes: list[str] = []
    wrappers = {match.group() if (match := WRAPPED.match(name)) else "" for name in stored}
    if len(wrappers) == 1 and (wrapper := wrappers.pop()):
        names = replace(names, wrapper=wrapper)
        notes.append(f"all names begin with '{wrapper}', which a wrapper of the model left; they are read without it")
    mapped = [name for file in files for key in headers(file) if (name := names.model_name(key, file)) is not None]
    if any(name.startswith(LANGUAGE_HEAD) for name in mapped) and not any(
        name.startswith(LANGUAGE_HEAD) for name in wanted
    ):
        names = replace(names, dropped=(*names.dropped, LANGUAGE_HEAD))
        notes.append("the language-model head is left out: a reward model has none")
    return names, tuple(notes)


def check(
    files: Sequence[Path], names: KeyMap, wanted: Mapping[str, tuple[int, ...]], tied: Mapping[str, tuple[int, ...]]
) -> dict[str, Header]:
    """Compare the headers of weight files with the tensors a model has.

    Args:
        files: the checkpoint's.
        names: how they are called in the model.
        wanted: shapes by the model's names.
        tied: the same of tensors that may be left out, because they are another's.

    Returns:
        The headers by the model's names.

    Raises:
        CheckpointError: a tensor is missing, unexpected, empty or of another shape, or a file is damaged.
    """
    tensors: dict[str, Header] = {}
    place: dict[str, Path] = {}
    for file in files:
        for stored, header in headers(file).items():
            if (name := names.model_name(stored, file)) is not None:
                tensors[name], place[name] = header, file
    for name in sorted(set(wanted) - set(tensors)):
        raise CheckpointError(
            f"{files[0]}: tensor '{names.stored_name(name)}' is missing, so it would be newly initialised and the "
            "scores noise; use an earlier checkpoint that still has it, or train one with: ranker train pairrm"
        )
    for name in sorted(name for name in set(tensors) - set(wanted) - set(tied) if not name.endswith(BUFFERS)):
        raise CheckpointError(f"{place[name]}: unexpected tensor '{name}'; config.json describes another model")
    for name, shape in {**wanted, **{name: shape for name, shape in tied.items() if name in tensors}}.items():
        if tensors[name].shape != shape:
            stored = names.stored_name(name)
            raise CheckpointError(
                f"{place[name]}: tensor '{stored}' has shape {list(tensors[name].shape)}, expected {list(shape)}; "
                "config.json describes another model, or the tensor was saved without being gathered"
            )
    return tensors


def _pickle(file: Path) -> dict[str, Any]:
    torch = require("torch")
    values = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zipfile(file))
    if not isinstance(values, dict) or not all(isinstance(value, torch.Tensor) for value in values.values()):
        raise CheckpointError(f"{file}: expected a state dict (names to tensors), found {type(values).__name__}")
    return values


@contextmanager
def _opened(file: Path) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{file}: damaged or truncated ({str(error):.200}); {COPY_AGAIN}") from error
