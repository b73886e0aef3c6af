"""A checkpoint to self-contained ``model.onnx`` files, each refused when it does not say what the model says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ranker.checkpoints import native, weights
from ranker.config import ExportPrecision
from ranker.export import graph, parity, quantize
from ranker.models.scorer import TorchScorer
from ranker.records import Preference
from ranker.runtime import manifest as manifests
from ranker.runtime import modelfile
from ranker.runtime.scorer import OnnxScorer


def export(
    checkpoint: Path,
    targets: Mapping[ExportPrecision, Path],
    *,
    rows: Sequence[Preference],
    evaluation: dict[str, Any] | None = None,
) -> dict[ExportPrecision, dict[str, Any]]:
    """Export ``checkpoint`` in one or more precisions: graph, manifest and tokenizer in one file each.

    Args:
        checkpoint: a native checkpoint folder.
        targets: where the file of each precision goes; it appears only after the parity gate has passed. ``int8`` has
            weights per channel and dynamic activations; the head is fp32 always.
        rows: labelled rows on which the parity is measured, a seeded sample of ``parity.ROWS``.
        evaluation: what is known about the model's quality; stored in the manifest.

    Returns:
        Per precision the parity table that is stored in the file.

    Raises:
        ParityError: an fp32 graph differs from the torch model by more than 1e-4.
        CheckpointError: the checkpoint is incomplete.
    """
    if not targets:
        return {}
    model, tokenizer = native.load(checkpoint)
    source = TorchScorer(model, tokenizer)
    reference = parity.Reference(source, rows, max_length=model.layout.max_length)
    source_sha256 = weights.digest(checkpoint)
    tables: dict[ExportPrecision, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="ranker-export-") as folder:
        bare, draft = Path(folder, "graph.onnx"), Path(folder, "model.onnx")
        graph.to_onnx(model, bare)
        for precision, path in targets.items():
            final = PRECISIONS[precision](bare)
            modelfile.write(draft, final, {})
            facts: dict[str, Any] = {
                **native.facts(model),
                "text": model.layout,
                "precision": precision,
                "source": checkpoint.name,
                "source_sha256": source_sha256,
                "graph_sha256": modelfile.read(draft)[1],
                "tokenizer_sha256": manifests.sha256(tokenizer.text),
                "evaluation": evaluation or {},
            }
            modelfile.write(draft, final, manifests.metadata(manifests.Manifest(**facts), tokenizer.text))
            tables[precision] = parity.compare(reference, OnnxScorer(draft, device="cpu"))
            if precision == "fp32":
                parity.check_fp32(tables[precision])
            manifest = manifests.Manifest(**facts, parity=tables[precision])
            path.parent.mkdir(parents=True, exist_ok=True)
            modelfile.write(path, final, manifests.metadata(manifest, tokenizer.text))
    return tables


def _int8(bare: Path) -> Path:
    quantized = bare.with_name("graph.int8.onnx")
    quantize.to_int8(bare, quantized)
    return quantized


PRECISIONS: Final[dict[ExportPrecision, Callable[[Path], Path]]] = {"fp32": lambda bare: bare, "int8": _int8}
