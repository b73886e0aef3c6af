"""A checkpoint to self-contained ``model.onnx`` files, each refused when it does not say what the model says."""

from __future__ import annotations

import gc
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

from ranker.atomic import draft_file, scratch_folder
from ranker.checkpoints import native, weights
from ranker.config import ExportPrecision
from ranker.errors import ParityError
from ranker.export import graph, parity, search, storage
from ranker.layouts.settings import TextSettings
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Preference
from ranker.runtime import manifest as manifests
from ranker.runtime import modelfile
from ranker.runtime.onnx_scorer import OnnxScorer
from ranker.runtime.session import int8_warning, on_graphics

logger = logging.getLogger(__name__)

LARGE: Final = 300_000_000
"""Weights from which an export says what it is doing: it takes minutes."""

OnLoss = Literal["refuse", "skip", "allow"]


def export(
    checkpoint: Path,
    targets: Mapping[ExportPrecision, Path],
    *,
    rows: Sequence[Preference],
    data: str = "",
    evaluation: dict[str, Any] | None = None,
    on_loss: OnLoss = "refuse",
    text: TextSettings | None = None,
    key_lengths: bool = False,
) -> dict[ExportPrecision, parity.ParityReport]:
    """Export ``checkpoint`` in one or more precisions: graph, manifest and tokenizer in one file each.

    Args:
        checkpoint: a native checkpoint folder.
        targets: where the file of each precision goes; it appears only after the parity gate has passed. ``fp16`` is
            for GPUs; ``int8`` has the scales that ``search`` finds, in onnxruntime's own nodes; ``int8-static`` fixed
            scales in standard nodes. The head is fp32 always.
        rows: labelled rows on which the parity is measured, a seeded sample of ``parity.ROWS``.
        data: what the rows are called in the report.
        evaluation: what is known about the model's quality; stored in the manifest.
        text: settings of the text in the place of the checkpoint's; the file keeps them.
        on_loss: what becomes of an fp16 or int8 graph that loses too much: refuse raises, skip warns, allow writes it.
        key_lengths: as in ``half.fp16``.

    fp32 and fp16 graphs are compared on CUDA too, where the installed onnxruntime has it.

    Returns:
        The parity report of each precision that was written; the file's manifest holds it too.

    Raises:
        ParityError: an fp32 graph differs from the torch model by more than 1e-4, or int8 passes its limits.
        CheckpointError: the checkpoint is incomplete.
    """
    if not targets:
        return {}
    slow = int8_warning() if any(precision.startswith("int8") for precision in targets) else None
    if slow is not None:
        logger.warning("int8: %s; int8 for other processors is exported on one of them", slow)
    model, tokenizer = native.load(checkpoint, text=text)
    size = sum(parameter.numel() for parameter in model.parameters())
    say = logger.warning if size > LARGE else logger.debug
    facts: dict[str, Any] = {
        **native.facts(model),
        "text": model.layout,
        "source": checkpoint.name,
        "source_sha256": weights.digest(checkpoint),
        "tokenizer_sha256": manifests.sha256(tokenizer.text),
        "evaluation": evaluation or {},
    }
    source = TorchScorer(model, tokenizer)
    pipeline = source.pipeline
    say("%s: %.2f billion weights; scoring rows with torch, to compare with", checkpoint.name, size / 1e9)
    per_token = model.num_parameters(exclude_embeddings=True)
    reference = parity.Reference(source, rows, max_length=model.layout.max_length, weights=per_token)
    reports: dict[ExportPrecision, parity.ParityReport] = {}
    # Beside the first target: weights beyond 2 GiB are then moved and not copied.
    beside = next(iter(targets.values())).absolute().parent
    beside.mkdir(parents=True, exist_ok=True)
    with scratch_folder(beside / "ranker-export") as folder:
        bare = Path(folder, "graph.onnx")
        say("writing the graph, which takes minutes")
        graph.to_onnx(model, bare)
        del model, source  # onnxruntime needs the memory
        gc.collect()
        for precision, path in targets.items():
            say("comparing the %s graph with torch", precision)
            final = bare
            plan: dict[str, Any] | None = None
            decisions: parity.DecisionAgreement | None = None
            if precision == "fp16":
                final, plan = search.fp16(bare, pipeline, reference, key_lengths=key_lengths)
            elif precision != "fp32":
                static = precision == "int8-static"
                final, plan, decisions = search.int8(bare, pipeline, rows, reference, static=static)
            draft = Path(folder, precision, path.name)
            draft.parent.mkdir()
            beside_it = storage.save(storage.load(final), draft, final.parent)
            known = {"precision": precision, "weights": beside_it, "graph_sha256": modelfile.read(draft)[1]}
            passes = {} if plan is None else {"quantization": plan}  # it decides which rows share passes
            stated = manifests.Manifest(**facts, **known, parity=passes)
            modelfile.write(draft, draft, manifests.metadata(stated, tokenizer.text))
            exported = OnnxScorer(draft, device="cpu")
            report = parity.compare(reference, exported, data=data, decisions=decisions, quantization=plan)
            if not _accepted(report, precision, on_loss, path):
                continue
            if not precision.startswith("int8") and on_graphics("auto"):
                on_card = parity.compare(reference, OnnxScorer(draft, device="cuda"), data=f"{data}, on CUDA")
                if not _accepted(on_card, precision, on_loss, path):
                    continue
                report = replace(report, cuda=on_card.on_card())
            reports[precision] = report
            stated = stated.model_copy(update={"parity": report.to_dict()})
            path.parent.mkdir(parents=True, exist_ok=True)
            if beside_it is not None:
                del exported  # it has the file open
                gc.collect()
                with draft_file(path.with_name(beside_it.name)) as place:
                    shutil.move(draft.with_name(beside_it.name), place)
            modelfile.write(path, draft, manifests.metadata(stated, tokenizer.text))
    return reports


def _accepted(report: parity.ParityReport, precision: ExportPrecision, on_loss: OnLoss, path: Path) -> bool:
    """Whether a graph is written; fp32 must always say what the model says."""
    if on_loss == "allow" and precision != "fp32":
        return True
    try:
        parity.check(report, precision)
    except ParityError as error:
        if on_loss == "refuse" or precision == "fp32":
            raise
        logger.warning("%s: %s", path.name, error)
        return False
    return True
