"""Checkpoints by their name on the model hub: fetched once, into the hub's own cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

from ranker.checkpoints.inspection import inspect
from ranker.checkpoints.report import CheckpointReport
from ranker.checkpoints.weights import Header, headers
from ranker.errors import CheckpointError
from ranker.extras import require
from ranker.runtime import manifest as manifests

NAME: Final = re.compile(r"[\w.-]+/[\w.-]+")
TEXTS: Final = ("*.json", "*.jinja", "*.model", "value_head.safetensors", "adapter_model.safetensors")
WEIGHTS: Final = ("*.safetensors",)
PICKLES: Final = ("*.bin",)


def local(
    name_or_path: str,
    *,
    weights: bool = True,
    allow_pickle: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """The folder of a checkpoint, fetched from the hub where it is a name and no folder. No code of it is fetched.

    Args:
        name_or_path: a folder, or a name on the hub.
        weights: whether the weights are fetched too.
        allow_pickle: whether weights may be pickles.
        revision: a branch, tag or commit on the hub; None for its main branch.
        token: of the hub; None for the one that ``hf auth login`` stored.

    Raises:
        CheckpointError: neither a folder nor a name that the hub gives.
        MissingExtraError: huggingface_hub is not installed.
    """
    path = Path(name_or_path)
    if path.exists():
        run = path / "checkpoint"  # a run's folder is taken for the checkpoint in it
        return run if (run / "config.json").is_file() and not (path / "config.json").is_file() else path
    if not NAME.fullmatch(name_or_path):
        raise CheckpointError(f"{name_or_path or 'no path'}: found no file or folder; check the path")
    patterns = [*TEXTS, *(WEIGHTS if weights else ()), *(PICKLES if weights and allow_pickle else ())]
    download = require("huggingface_hub").snapshot_download
    try:
        return Path(download(name_or_path, allow_patterns=patterns, revision=revision, token=token))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{name_or_path}: no such folder, and the hub does not give a model of that name "
            f"({str(error).strip().splitlines()[0]:.120}); check the name, the network, and HF_HUB_OFFLINE"
        ) from error


def inspect_checkpoint(
    name_or_path: str,
    *,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> CheckpointReport:
    """``inspect`` of a folder, or of a name on the hub, of whose weights only the headers are fetched.

    Args:
        name_or_path: a folder, or a name on the hub.
        head_prefix: as in ``inspect``.
        allow_pickle: as in ``inspect``; of a name on the hub, the weights are fetched whole.
        revision: as in ``local``.
        token: as in ``local``.

    Raises:
        CheckpointError: as ``inspect`` and ``local``.
    """
    path = Path(name_or_path)
    if path.exists() or allow_pickle:
        folder = local(name_or_path, allow_pickle=allow_pickle, revision=revision, token=token)
        return inspect(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
    folder = local(name_or_path, weights=False, revision=revision, token=token)
    if (folder / "adapter_config.json").is_file():
        return replace(inspect(folder, head_prefix=head_prefix), path=name_or_path)
    library = require("huggingface_hub")
    broken = (library.errors.NotASafetensorsRepoError, library.errors.SafetensorsParsingError, OSError, ValueError)
    try:
        metadata = library.get_safetensors_metadata(name_or_path, revision=revision, token=token)
    except broken as error:
        raise CheckpointError(
            f"{name_or_path}: the hub gives no safetensors headers ({str(error).strip().splitlines()[0]:.120}); "
            "fetch it whole with --allow-pickle, if you trust its source"
        ) from error
    tensors = {
        name: Header(tuple(info.shape), str(info.dtype))
        for file in metadata.files_metadata.values()
        for name, info in file.tensors.items()
    }
    for value_head in folder.glob("value_head.safetensors"):
        tensors |= headers(value_head)
    return replace(inspect(folder, head_prefix=head_prefix, remote_headers=tensors), path=name_or_path)


def push(name: str, checkpoint: Path, exports: Iterable[Path]) -> None:
    """Upload a checkpoint and its exports to a repository of the hub; a missing one is created as private.

    Raises:
        CheckpointError: it could not be uploaded; nothing is lost here.
    """
    api = require("huggingface_hub").HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(repo_id=name, folder_path=checkpoint)
        for path in exports:
            beside = manifests.weights_of(path)
            files = [path] if beside is None else [path.with_name(beside.name), path]
            for file in files:
                api.upload_file(repo_id=name, path_or_fileobj=file, path_in_repo=file.name)
    except Exception as error:  # of whatever library the hub's own speaks HTTP with
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name}: not uploaded ({reason:.200}); run: hf upload {name} {checkpoint}") from error
