"""A checkpoint to self-contained ``model.onnx`` files; a file whose scores differ from the model's is refused."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ranker.checkpoints import native, weights
from ranker.config import ExportPrecision
from ranker.errors import ParityError
from ranker.export import graph, parity, search
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Preference
from ranker.runtime import manifest as manifests
from ranker.runtime import modelfile
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.runtime.session import int8_warning

logger = logging.getLogger(__name__)

OnLoss = Literal["refuse", "skip", "allow"]


def export(
    checkpoint: Path,
    targets: Mapping[ExportPrecision, Path],
    *,
    rows: Sequence[Preference],
    data: str = "",
    evaluation: dict[str, Any] | None = None,
    on_loss: OnLoss = "refuse",
) -> dict[ExportPrecision, dict[str, Any]]:
    """Export ``checkpoint`` in one or more precisions: graph, manifest and tokenizer in one file each.

    Args:
        checkpoint: a native checkpoint folder.
        targets: where the file of each precision goes; it appears only after the parity gate has passed. ``fp16`` is
            for GPUs; ``int8`` has the scales that ``search`` chooses, in onnxruntime's nodes; ``int8-static`` has fixed
            scales in standard nodes. The head is always fp32.
        rows: labelled rows on which the parity is measured, a seeded sample of ``parity.ROWS``.
        data: the name of the rows in the table.
        evaluation: figures of the model's quality; stored in the manifest.
        on_loss: for an fp16 or int8 graph that loses too much: ``refuse`` raises, ``skip`` warns, ``allow`` writes it.

    Returns:
        The parity table in the file, per precision that was written.

    Raises:
        ParityError: an fp32 graph differs from the torch model by more than 1e-4, or int8 passes its limits.
        CheckpointError: the checkpoint is incomplete.
    """
    if not targets:
        return {}
    slow = int8_warning() if any(precision.startswith("int8") for precision in targets) else None
    if slow is not None:
        logger.warning("int8: %s; int8 for other processors is exported on one of them", slow)
    model, tokenizer = native.load(checkpoint)
    source = TorchScorer(model, tokenizer)
    reference = parity.Reference(source, rows, max_length=model.layout.max_length)
    source_sha256 = weights.digest(checkpoint)
    tables: dict[ExportPrecision, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory(prefix="ranker-export-") as folder:
        bare, draft = Path(folder, "graph.onnx"), Path(folder, "model.onnx")
        graph.to_onnx(model, bare)
        for precision, path in targets.items():
            final = bare
            plan: dict[str, Any] = {}
            measured: dict[str, Any] | None = None
            if precision == "fp16":
                final, plan = search.fp16(bare, source, reference)
            elif precision != "fp32":
                static = precision == "int8-static"
                final, plan, measured = search.int8(bare, source, rows, reference, static=static)
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
            table = {"data": data, **parity.compare(reference, OnnxScorer(draft, device="cpu"), measured)}
            if not _accepted(table, precision, on_loss, path):
                continue
            tables[precision] = table | ({"quantization": plan} if plan else {})
            manifest = manifests.Manifest(**facts, parity=tables[precision])
            path.parent.mkdir(parents=True, exist_ok=True)
            modelfile.write(path, final, manifests.metadata(manifest, tokenizer.text))
    return tables


def _accepted(table: dict[str, Any], precision: ExportPrecision, on_loss: OnLoss, path: Path) -> bool:
    """Whether a graph is written; fp32 must always agree with the model."""
    if on_loss == "allow" and precision != "fp32":
        return True
    try:
        parity.check(table, precision)
    except ParityError as error:
        if on_loss == "refuse" or precision == "fp32":
            raise
        logger.warning("%s: %s", path.name, error)
        return False
    return True
