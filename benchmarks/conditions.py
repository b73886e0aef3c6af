"""Where and with what a benchmark was run: every file of figures says so."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import Any

from ranker.runtime.session import available_cores, processor

PACKAGES = ("torch", "transformers", "onnxruntime")


def conditions(*packages: str, threads: int | None = None) -> dict[str, Any]:
    """The processor, its threads in use, today's date, and the versions of ``packages`` (default: ``PACKAGES``)."""
    return {
        "machine": processor(),
        "threads": threads or available_cores(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: version(name) for name in packages or PACKAGES},
    }
