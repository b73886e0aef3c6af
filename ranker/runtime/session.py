"""onnxruntime sessions: which provider, how many threads, and a loud word when CUDA was asked for and is absent."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import Any, Final, Literal

from ranker.errors import ConfigError, ModelFileError
from ranker.extras import onnxruntime_conflict, require

logger = logging.getLogger(__name__)

Device = Literal["auto", "cpu", "cuda"]
CUDA: Final = "CUDAExecutionProvider"
QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
PROCESSOR: Final = Path("/proc/cpuinfo")
CPU: Final = "CPUExecutionProvider"


def open_session(path: Path, *, device: Device = "auto", threads: int | None = None) -> Any:
    """An ``onnxruntime.InferenceSession`` on ``device``.

    Args:
        path: the model file.
        device: ``auto`` takes CUDA where the installed wheel offers it; ``cuda`` insists.
        threads: threads within an operation; default the processors this process may use.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ConfigError: CUDA was asked for and is not available.
        ModelFileError: onnxruntime cannot read the file.
    """
    ort = require("onnxruntime")
    conflict = onnxruntime_conflict()
    if conflict is not None:
        logger.warning(conflict)
    available = ort.get_available_providers()
    has_cuda = CUDA in available
    if device == "cuda" and not has_cuda:
        raise ConfigError(
            f"CUDA was asked for, but the installed onnxruntime offers only {', '.join(available)}; "
            + (conflict or "run: pip uninstall -y onnxruntime && pip install 'ranker-toolkit[gpu]'")
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3
    providers = [CUDA, CPU] if has_cuda and device != "cpu" else [CPU]
    if CUDA in providers and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelFileError(f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0]:.200})") from error
    if device == "cuda" and CUDA not in session.get_providers():
        raise ConfigError("CUDA was asked for, but onnxruntime fell back to the CPU; check the driver with nvidia-smi")
    return session


def processor_has(*flags: str) -> bool:
    """Whether this processor has one of these instruction sets, by Linux's names; True where that cannot be read."""
    known = _about_processor("flags", "Features")
    return known is None or not set(flags).isdisjoint(known.split())


def processor() -> str:
    """The processor's name, as far as it is known."""
    return _about_processor("model name", "CPU part") or platform.processor()


def _about_processor(*names: str) -> str | None:
    """What Linux says of the first processor under one of these names."""
    try:
        lines = PROCESSOR.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), None)


def available_cores() -> int:
    """Processors this process may use: its affinity, limited by the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
