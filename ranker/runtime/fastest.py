"""``precision="auto"``: which file of a model this machine computes fastest, chosen by what its processor or GPU has.

A choice by instruction sets is the same in every process of a machine; one by a measurement would not be.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args

from ranker.errors import ConfigError, ModelFileError
from ranker.extras import require
from ranker.runtime import manifest as manifests
from ranker.runtime.devices import device_names, parse_device
from ranker.runtime.modelfile import exported_name
from ranker.runtime.session import DOT_PRODUCTS, graphics, on_graphics, processor_is_known_to_have

logger = logging.getLogger(__name__)

LoadPrecision = Literal["fp32", "bf16", "auto"]

TILES: Final = "amx_bf16"
"""The instruction set of products of bf16 matrices, by its name in Linux."""

OF_CHECKPOINTS: Final[dict[str, Any]] = {
    "quantization": "none",
    "device_map": None,
    "padding_free": False,
    "head_prefix": None,
}
"""Options that only a checkpoint takes, with the values that ask for nothing."""

PRECISIONS: Final = ("fp32", "int8", "int8-static", "fp16")
"""Of exported files; where a choice has no reason, the first that is there."""


def resolved(path: str | Path, options: Mapping[str, Any]) -> tuple[str | Path, dict[str, Any]]:
    """The path and options of ``ranker.load`` with ``precision="auto"`` replaced by what it stands for.

    Raises:
        ConfigError: no path, an unknown precision, or devices of several kinds, which would take different files.
        ModelFileError: the files of the folder are of different checkpoints.
    """
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"expected the path of a model or a name on the hub, got {type(path).__name__}")
    precision = options.get("precision", "fp32")
    if precision not in get_args(LoadPrecision):
        raise ConfigError(f"expected precision {', '.join(get_args(LoadPrecision))}, got '{precision}'")
    if precision != "auto":
        return path, dict(options)
    kind = _kind(options.get("device", "auto"))
    folder = Path(path)
    files = {name: folder / exported_name(name) for name in PRECISIONS}
    files = {name: file for name, file in files.items() if file.is_file()}
    if any(options.get(name, nothing) != nothing for name, nothing in OF_CHECKPOINTS.items()):
        folder, files = _checkpoint(folder), {}
    chosen, precision = _fastest(folder, files, kind) if folder.is_dir() else (path, "fp32")
    logger.info("precision auto: %s in %s", chosen, precision)
    return chosen, {**options, "precision": precision}


def _fastest(folder: Path, files: Mapping[str, Path], kind: str) -> tuple[Path, str]:
    """What to load of a folder, and the precision to ask for."""
    if kind in ("auto", "cuda", "tensorrt") and (kind != "auto" or graphics()):
        if "fp16" in files and on_graphics(kind):
            return files["fp16"], "fp32"
        if kind != "tensorrt" and _has_checkpoint(folder) and (bf16 := _bf16_on_gpu()) is not None:
            return _checkpoint(folder), "bf16" if bf16 else "fp32"
    elif kind not in ("auto", "cpu"):
        return _checkpoint(folder), "fp32"
    elif processor_is_known_to_have(*DOT_PRODUCTS):
        if _bf16_is_faster(files) and _has_checkpoint(folder):
            return _checkpoint(folder), "bf16"
        for name in ("int8", "int8-static"):
            if name in files and not _only_weights(files, name):
                return files[name], "fp32"
    return next(iter(files.values()), folder), "fp32"


def _bf16_is_faster(files: Mapping[str, Path]) -> bool:
    """Whether torch's bf16 is faster on this processor than 8-bit products.

    AMX multiplies bf16 in tiles. Models that compare answers read them under masks, which an int8 file computes in
    fp32: on two cores with AMX a ``set_encoder`` ranks 16 answers 1.5 times as fast in bf16, a ``shared_prompt`` 2.9
    times. A pointwise model is 1.4 times as fast in int8.
    """
    if not files or not processor_is_known_to_have(TILES) or importlib.util.find_spec("torch") is None:
        return False
    manifest, _ = manifests.read(next(iter(files.values())))
    return manifest.text.scores_are_relative


def _kind(device: Any) -> str:
    names = device_names(device)
    kinds = {parse_device(name)[0] for name in names}
    if len(kinds) > 1:
        raise ConfigError(
            f"precision auto would take different files on {', '.join(names)}; load one file, for example model.onnx"
        )
    return kinds.pop()


def _only_weights(files: Mapping[str, Path], name: str) -> bool:
    """Whether a file has 8-bit weights that are multiplied in fp32, which is slower than fp32 throughout.

    Raises:
        ModelFileError: the fp32 file beside it is of another checkpoint.
    """
    manifest, _ = manifests.read(files[name])
    if "fp32" in files and manifests.read(files["fp32"])[0].source_sha256 != manifest.source_sha256:
        raise ModelFileError(
            f"{files[name]}: exported from another checkpoint than {files['fp32'].name}; load one of them by its name, "
            "or export both again"
        )
    return manifest.weights_only


def _bf16_on_gpu() -> bool | None:
    """Whether torch's GPU computes in bf16; None without torch or without a GPU."""
    if importlib.util.find_spec("torch") is None:
        return None
    cuda = require("torch").cuda
    return bool(cuda.is_bf16_supported(including_emulation=False)) if cuda.is_available() else None


def _checkpoint(folder: Path) -> Path:
    inner = folder / "checkpoint"
    return inner if inner.is_dir() else folder


def _has_checkpoint(folder: Path) -> bool:
    return any((_checkpoint(folder) / name).is_file() for name in ("config.json", "adapter_config.json"))
