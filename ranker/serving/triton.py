"""A model repository for Triton: its Python backend scores all requests of a dynamic batch together.

Triton's onnxruntime backend would need clients that tokenise, and would stack tensors of different groups. Here
requests hold text and responses hold scores, both as JSON, so that any requests can share a batch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from ranker.batch_scorer import BatchScorer
from ranker.data.formats import parse_group
from ranker.errors import ConfigError, DataError
from ranker.extras import require
from ranker.records import BadRow, Group
from ranker.runtime import manifest
from ranker.scoring.protocol import GroupScores

MODULE: Final = '''"""Needs ranker-toolkit[cpu] or [gpu] in Triton's Python."""

from ranker.serving.triton import Model as TritonPythonModel
'''

CONFIG: Final = """name: "{name}"
backend: "python"
max_batch_size: {batch}
input [{{ name: "ITEM" data_type: TYPE_STRING dims: [1] }}]
output [{{ name: "SCORES" data_type: TYPE_STRING dims: [1] }}]
dynamic_batching {{ max_queue_delay_microseconds: 1000 }}
instance_group [{{ count: 1 kind: {kind} }}]
"""


def write(model: Path, repository: Path, *, name: str = "ranker", batch: int = 256, gpu: bool = False) -> None:
    """Write ``repository/name``: ``config.pbtxt``, ``1/model.py`` and ``1/model.onnx``.

    A request's ``ITEM`` is a JSON object with ``prompt`` and ``candidates``; its ``SCORES`` one with ``scores`` (raw
    logits) and ``error``.

    Raises:
        ConfigError: the folder exists.
        ModelFileError: ``model`` is not a complete model.onnx of this package.
    """
    weights = manifest.read(model)[0].weights
    folder = repository / name
    if folder.exists():
        raise ConfigError(f"{folder}: is there already; choose another repository")
    (folder / "1").mkdir(parents=True)
    kind = "KIND_GPU gpus: [0]" if gpu else "KIND_CPU"
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name, batch=batch, kind=kind), encoding="utf-8")
    (folder / "1" / "model.py").write_text(MODULE, encoding="utf-8")
    shutil.copyfile(model, folder / "1" / "model.onnx")
    if weights is not None:
        shutil.copyfile(model.with_name(weights.name), folder / "1" / weights.name)


class Model:
    """What Triton calls (``TritonPythonModel``)."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model of this version."""
        folder = Path(args["model_repository"]) / args["model_version"]
        device = "cuda" if args.get("model_instance_kind") == "GPU" else "cpu"
        self.scorer = BatchScorer(folder / "model.onnx", device=device)

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response per request, in order; all their items are scored together."""
        backend = require("triton_python_backend_utils")
        texts = [backend.get_input_tensor_by_name(request, "ITEM").as_numpy() for request in requests]
        groups = [_group(text) for batch in texts for text in batch.reshape(-1)]
        results = iter(self.scorer.score(groups))
        responses = []
        for batch in texts:
            answers = [_answer(next(results)) for _ in batch.reshape(-1)]
            tensor = backend.Tensor("SCORES", np.array(answers, dtype=object).reshape(batch.shape))
            responses.append(backend.InferenceResponse(output_tensors=[tensor]))
        return responses


def _group(text: bytes) -> Group | BadRow:
    try:
        row = json.loads(text)
        if not isinstance(row, dict):
            raise DataError("ITEM", "item", f"expected a JSON object, got {type(row).__name__}")
        return parse_group(row, "ITEM")
    except DataError as error:
        return BadRow.of(error)
    except (ValueError, RecursionError) as error:
        return BadRow("ITEM", "item", f"expected a JSON object, got invalid JSON ({error})")


def _answer(result: GroupScores) -> bytes:
    scores = None if result.error is not None else result.scores.tolist()
    return json.dumps({"scores": scores, "error": result.error}).encode()
