"""onnxruntime sessions: provider, threads, and an error when CUDA was asked for and is not available."""

from __future__ import annotations

import logging
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ranker.errors import ConfigError, ModelFileError
from ranker.extras import onnxruntime_conflict, require
from ranker.runtime.devices import check_onnx, parse_device

if TYPE_CHECKING:
    from ranker.config.section import AttentionKernel

logger = logging.getLogger(__name__)

Device = str
"""A name of ``ranker.runtime.devices``."""

TENSORRT: Final = "TensorrtExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")
PROCESSOR: Final = Path("/proc/cpuinfo")
CPU: Final = "CPUExecutionProvider"
NAMES: Final = {CUDA: "CUDA", TENSORRT: "TensorRT"}
ENGINES: Final = "tensorrt"
DOT_PRODUCTS: Final = ("avx512_vnni", "avx_vnni", "asimddp")
"""Instruction sets, by their names in Linux, with which int8 is faster than fp32."""

GRAPHICS: Final = Path("/proc/driver/nvidia/gpus")
"""Holds a folder per GPU with a file that names it."""


SDPA_KERNELS: Final[dict[AttentionKernel, str]] = {"auto": "3", "efficient": "2", "cudnn": "8", "math": "16"}
"""onnxruntime's numbers of the kernels of attention on CUDA.

``auto`` is its flash and its efficient kernel, and not cuDNN's, which plans anew for every shape.
"""


def open_session(
    path: Path, *, device: Device = "auto", threads: int | None = None, attention_kernel: AttentionKernel = "auto"
) -> Any:
    """An ``onnxruntime.InferenceSession`` on ``device``.

    TF32, which is onnxruntime's default on CUDA and changes logits by 4e-3, is off, and norms that are fused with a sum
    add up in fp32. TensorRT chooses TF32 itself; ``NVIDIA_TF32_OVERRIDE=0`` switches it off there.

    Args:
        path: the model file.
        device: ``auto`` takes CUDA where the installed wheel offers it; ``cuda`` requires it, ``cuda:1`` is the second
            GPU; ``tensorrt`` compiles the graph for it, once per shape, and keeps the engines in ``ENGINES`` of the
            cache folder.
        threads: threads within an operation; default: the processors that this process may use.
        attention_kernel: the kernel of attention on CUDA; ``auto`` leaves it to onnxruntime, without cuDNN's.

    Raises:
        MissingExtraError: onnxruntime is not installed.
        ConfigError: CUDA or TensorRT was asked for and is not available, or an attention kernel where it is not used.
        ModelFileError: onnxruntime cannot read the file.
    """
    ort = require("onnxruntime")
    conflict = onnxruntime_conflict()
    if conflict is not None:
        logger.warning(conflict)
    available = ort.get_available_providers()
    check_onnx(device)
    kind, number = parse_device(device)
    wanted = {"cuda": CUDA, "tensorrt": TENSORRT}.get(kind)
    if wanted is not None and wanted not in available:
        raise ConfigError(
            f"{NAMES[wanted]} was asked for, but the installed onnxruntime offers only {', '.join(available)}; "
            + (conflict or "run: pip uninstall -y onnxruntime && pip install 'ranker-toolkit[gpu]'")
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or available_cores()
    options.log_severity_level = 3
    card = {"device_id": str(number)} if number else {}
    if attention_kernel not in SDPA_KERNELS:
        raise ConfigError(f"expected attention_kernel {', '.join(SDPA_KERNELS)}; got '{attention_kernel}'")
    if attention_kernel != "auto" and (not on_graphics(device) or kind == "tensorrt"):
        raise ConfigError(f"attention_kernel '{attention_kernel}' is one of CUDA's; on {kind} take auto")
    exact = {"use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1", "sdpa_kernel": SDPA_KERNELS[attention_kernel]}
    providers: list[Any] = [(CUDA, {**exact, **card}), CPU] if on_graphics(device) else [CPU]
    if kind == "tensorrt":
        engines = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache_folder() / ENGINES)}
        providers.insert(0, (TENSORRT, engines | card))
    if on_graphics(device) and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()
    try:
        session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:
        raise ModelFileError(f"{path}: onnxruntime cannot load it ({str(error).splitlines()[0]:.200})") from error
    if wanted is not None and wanted not in session.get_providers():
        raise ConfigError(
            f"{NAMES[wanted]} was asked for, but onnxruntime fell back to {', '.join(session.get_providers())}; check "
            + ("the driver with nvidia-smi" if wanted == CUDA else "that TensorRT's libraries are on LD_LIBRARY_PATH")
        )
    return session


def on_graphics(device: Device) -> bool:
    """Whether a session on ``device`` will use a GPU: by request, or because the installed wheel offers it."""
    kind, _ = parse_device(device)
    return kind != "cpu" and (kind != "auto" or CUDA in require("onnxruntime").get_available_providers())


def processor_has(*flags: str) -> bool:
    """Whether this processor has one of these instruction sets (Linux's names); True where they cannot be read."""
    known = _about_processor("flags", "Features")
    return known is None or not set(flags).isdisjoint(known.split())


def processor_is_known_to_have(*flags: str) -> bool:
    """Whether this processor has one of these instruction sets; False where they cannot be read."""
    return _about_processor("flags", "Features") is not None and processor_has(*flags)


def int8_warning() -> str | None:
    """A warning if this processor computes int8 slower than fp32, else None.

    Measured with onnxruntime on two AMD cores with AVX2 and no VNNI: 0.60 of fp32's speed as a whole process with 8-bit
    products, 0.92 with int8 weights only.
    """
    if processor_has(*DOT_PRODUCTS):
        return None
    return (
        "this processor has no 8-bit dot products (AVX512-VNNI, AVX-VNNI or Arm's dotprod): int8 runs at 0.6 to 0.9 of "
        "fp32's speed here, and 8-bit products may saturate; take the fp32 file"
    )


def processor() -> str:
    """The processor's name; empty if unknown."""
    return _about_processor("model name", "CPU part") or platform.processor()


def graphics() -> str:
    """The GPUs' names from the driver; empty if unknown."""
    try:
        texts = [path.read_text(encoding="utf-8") for path in sorted(GRAPHICS.glob("*/information"))]
    except OSError:
        return ""
    return ", ".join(
        line.partition(":")[2].strip() for text in texts for line in text.splitlines() if line.startswith("Model")
    )


def cache_folder() -> Path:
    """The folder of this package's measurements: under ``XDG_CACHE_HOME``, default ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ranker-toolkit"


def _about_processor(*names: str) -> str | None:
    """The value of one of these names for the first processor in ``/proc/cpuinfo``."""
    try:
        lines = PROCESSOR.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(names)), None)


def available_cores() -> int:
    """Number of processors that this process may use: its affinity, limited by the cgroup's CPU quota."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
