"""Names of devices, as torch has them: ``cuda``, ``cuda:1``, ``mps``, ``xpu``; and ``auto`` and ``tensorrt``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from ranker.errors import ConfigError, nearest

KINDS: Final = ("auto", "cpu", "cuda", "tensorrt", "mps", "xpu")
NUMBERED: Final = ("cuda", "tensorrt", "xpu")
"""Kinds of which a machine may have several."""

ONNX: Final = ("auto", "cpu", "cuda", "tensorrt")
"""Kinds that run a ``model.onnx``."""


def parse_device(name: str) -> tuple[str, int]:
    """The kind of a device and its number: ``cuda:1`` is ("cuda", 1), and a name without a number is the first.

    Raises:
        ConfigError: an unknown device.

    Example:
        >>> parse_device("cuda:1")
        ('cuda', 1)
    """
    kind, colon, number = str(name).partition(":")
    if kind not in KINDS:
        raise ConfigError(f"expected device {', '.join(KINDS)} or cuda:1, got '{name}'{nearest(kind, KINDS)}")
    if not colon:
        return kind, 0
    if kind not in NUMBERED or not number.isdecimal():
        raise ConfigError(f"device '{name}': expected a number after the colon of {', '.join(NUMBERED)}, as in cuda:1")
    return kind, int(number)


def device_names(device: str | Sequence[str]) -> list[str]:
    """The devices of a list, or of a text with commas.

    Raises:
        ConfigError: an unknown device, or none.

    Example:
        >>> device_names("cuda:0,cuda:1")
        ['cuda:0', 'cuda:1']
    """
    names = [part.strip() for part in device.split(",")] if isinstance(device, str) else list(device)
    if not names:
        raise ConfigError("expected a device, got an empty list")
    for name in names:
        parse_device(name)
    return names


def check_onnx(name: str) -> None:
    """Refuse devices that run no ``model.onnx``.

    Raises:
        ConfigError: naming those that do.
    """
    kind, _ = parse_device(name)
    if kind not in ONNX:
        raise ConfigError(f"device '{name}': a model.onnx runs on {', '.join(ONNX[1:])}; load its checkpoint on {kind}")


def torch_device(name: str, torch: Any) -> str:
    """The device that torch computes on; ``auto`` takes the first GPU of CUDA where there is one.

    Raises:
        ConfigError: a device that torch does not find on this machine.
    """
    kind, number = parse_device(name)
    if kind == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "tensorrt":
        raise ConfigError("TensorRT runs a model.onnx; export the checkpoint with --precision fp16")
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": getattr(torch, "xpu", None)}.get(kind)
    if kind != "cpu" and (backend is None or not backend.is_available()):
        advice = "; check the driver with nvidia-smi" if kind == "cuda" else "; take cpu"
        raise ConfigError(f"{kind.upper()} was asked for, but torch finds none{advice}")
    if kind in NUMBERED and number >= backend.device_count():  # type: ignore[union-attr]
        raise ConfigError(f"device '{name}': torch finds {backend.device_count()} of them, from {kind}:0 on")  # type: ignore[union-attr]
    return f"{kind}:{number}" if kind in NUMBERED else kind
