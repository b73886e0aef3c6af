"""Whether a checkpoint is whole and scores as it should, by loading it and comparing it with its own files."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ranker.checkpoints import adapters, native, reference, weights
from ranker.checkpoints.convert import PROBES
from ranker.checkpoints.detection import bare
from ranker.checkpoints.inspection import inspect
from ranker.checkpoints.report import Check, CheckpointReport
from ranker.errors import CheckpointError
from ranker.layouts import Layout
from ranker.metrics import pairwise_summary
from ranker.models.backbones import DECODERS
from ranker.models.heads import HEAD_MODULES
from ranker.models.pointwise import RewardReading
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Preference
from ranker.scoring import batching
from ranker.scoring.pipeline import TextPipeline
from ranker.scoring.protocol import GroupScores
from ranker.text.tokenizer import TextTokenizer

SUMS: Final = "SHA256SUMS"
"""Lines as ``sha256sum --check`` reads them."""

BATCHED: Final = 1e-4
"""Largest difference of fp32 logits between batch sizes and padding sides, times the largest where that is above 1."""


LEAST_SPREAD: Final = 0.1
"""Of the reference's scores, by which differences are measured."""


def verify(
    folder: Path,
    *,
    against: Path | None = None,
    data: Sequence[Preference] | None = None,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
) -> list[Check]:
    """Run all checks of a checkpoint; checksums are written where there are none and all else passed.

    Args:
        folder: the checkpoint.
        against: one that must score the same (within 1e-4 of the largest score).
        data: labelled rows; an accuracy whose interval reaches 0.5 fails.
        head_prefix: as in ``native.load``.
        allow_pickle: as in ``native.load``.

    Raises:
        CheckpointError: the checkpoint cannot be loaded at all; the message names the tensor and the repair.
    """
    checks = [_checksums(folder)] if (folder / SUMS).is_file() else []
    changed = [check.seen for check in checks if not check.passed]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            model, tokenizer = native.load(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
        except Exception as error:
            if not changed:
                raise
            raise CheckpointError(f"{folder}: {changed[0]} (by {SUMS}), and it does not load: {error}") from error
    scorer = TorchScorer(model, tokenizer)
    report = inspect(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
    agreement = "; ".join(problem.what for problem in report.problems) or "agree"
    notes = [str(w.message).removeprefix(f"{folder}: ") for w in caught if issubclass(w.category, UserWarning)]
    checks += [
        _tensors(model),
        _head_as_stored(folder, model, head_prefix, allow_pickle),
        Check("config and files", not any(problem.serious for problem in report.problems), agreement),
        *([Check("notes", True, "; ".join(notes))] if notes else []),
        _batches(scorer),
        _padding(scorer),
        *([] if against is None else [_against(scorer, against, head_prefix, allow_pickle)]),
        *([] if data is None else [_accuracy(scorer, data)]),
    ]
    if not adapters.is_adapter(folder):
        ours, layout = scorer.score(reference.CONVERSATIONS), model.layout
        del scorer, model  # a large model is held once
        checks += _as_transformers(folder, report, layout, tokenizer, ours)
    if not (folder / SUMS).is_file() and all(check.passed for check in checks):
        (folder / SUMS).write_text("".join(f"{d}  {n}\n" for n, d in digests(folder).items()), encoding="utf-8")
        checks.append(Check("checksums", True, f"written to {SUMS}"))
    return checks


def _as_transformers(
    folder: Path, report: CheckpointReport, layout: Layout, tokenizer: TextTokenizer, ours: Sequence[GroupScores]
) -> list[Check]:
    """Ids as the tokenizer's own code gives them, and scores as the library's own class gives them on these ids."""
    try:
        theirs = reference.rows_of_transformers(folder, layout)
    except Exception as error:  # whatever the library raises on a tokenizer's files
        return [Check("ids", False, f"transformers does not read the tokenizer: {error!s:.200}")]
    if theirs is None:
        return []
    ids = [None if row is None else row["input_ids"] for row in theirs]
    mine = reference.rows_of_ours(layout, tokenizer)
    different = [number for number, (a, b) in enumerate(zip(mine, ids, strict=True)) if a != b]
    seen = f"{len(ids) - len(different)} of {len(ids)} rows have the ids of transformers"
    if different:
        number = different[0]
        shown = [
            "refused" if row is None else repr(tokenizer.decode(np.array(row, np.int32)))
            for row in (mine[number], ids[number])
        ]
        return [Check("ids", False, f"{seen}; row {number} is {shown[0]} here, {shown[1]} there")]
    checks = [Check("ids", True, seen)]
    read = [row for row in theirs if row is not None]
    try:
        answers = native.plan_of(folder, allow_pickle=True).spec.answers if report.head is None else ()
        outputs = None
        if read:
            outputs = (
                reference.scores_of_words(folder, answers, read)
                if answers
                else reference.scores_of_transformers(folder, report, read)
            )
    except Exception as error:  # whatever the library raises on a model's files
        return [*checks, Check("scores", False, f"transformers does not read the model: {error!s:.200}")]
    if outputs is None:
        return checks
    expected = layout.reduce(outputs)
    scores = np.concatenate([result.scores for result in ours])[[row is not None for row in theirs]]
    spread = max(float(np.ptp(expected)), LEAST_SPREAD)
    difference = float(np.abs(scores - expected).max())
    seen = f"{len(read)} scores differ from those of transformers by at most {difference:.1e} (spread {spread:.1e})"
    return [*checks, Check("scores", difference <= BATCHED * spread, seen)]


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a folder but the list itself, by its path in the folder."""
    sums = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != SUMS):
        with path.open("rb") as file:
            sums[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _checksums(folder: Path) -> Check:
    lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    noted = {name: digest for digest, _, name in (line.partition("  ") for line in lines if line)}
    sums = digests(folder)
    wrong = [f"{name} {'changed' if name in sums else 'is missing'}" for name in noted if sums.get(name) != noted[name]]
    wrong += [f"{name} is new" for name in sums if name not in noted]
    return Check("checksums", not wrong, "; ".join(wrong) or f"{len(noted)} files as in {SUMS}")


def _tensors(model: PreTrainedModel) -> Check:
    wrong = []
    state = model.state_dict()
    for name, tensor in state.items():
        if tensor.is_meta:
            wrong.append(f"'{name}' is on the meta device: it was never read")
        elif tensor.numel() == 0:
            wrong.append(f"'{name}' is empty")
        elif not torch.isfinite(tensor).all():
            wrong.append(f"'{name}' holds NaN or infinity")
    return Check("tensors", not wrong, "; ".join(wrong) or f"{len(state)} present, finite and not empty")


def _head_as_stored(folder: Path, model: PreTrainedModel, head_prefix: str | None, allow_pickle: bool) -> Check:
    """Compare the head in memory with the bytes of the file, read again."""
    if adapters.is_adapter(folder):
        whole = adapters.check_head(folder, allow_pickle=allow_pickle).items()
        stored = {bare(name): tensor for name, tensor in whole if ".lora_" not in name}
    else:
        plan = native.plan_of(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
        stored = weights.read(plan.files, plan.spec.names)
    state = model.state_dict()
    names = [name for name in state if name in stored and not set(HEAD_MODULES).isdisjoint(name.split("."))]
    wrong = [name for name in names if not torch.equal(state[name], stored[name].to(state[name].dtype))]
    if wrong:
        return Check("head", False, f"differs from its file: {', '.join(wrong)}")
    elsewhere = "none in these files: it is in the adapter's base, or among the words"
    return Check("head", True, f"{len(names)} tensors equal to their files" if names else elsewhere)


def _batches(scorer: TorchScorer) -> Check:
    together = scorer.score(PROBES)
    alone = [scorer.score([group])[0] for group in PROBES]
    difference = _difference(together, alone)
    return Check("batch sizes", difference <= BATCHED * _scale(together), f"scores differ by at most {difference:.1e}")


def _padding(scorer: TorchScorer) -> Check:
    """Decoders under left padding; an encoder's first token has its place, so it is padded further on the right."""
    model: Any = scorer.model
    left = isinstance(model, RewardReading) and model.config.model_type in DECODERS
    pipeline = TextPipeline(model.layout, scorer.pipeline.tokenizer)  # a row for every answer, none shared
    units = batching.units([pipeline.pack(task) for task in pipeline.tokenize(PROBES)])
    arrays = {name: torch.from_numpy(array) for name, array in batching.collate(model.layout, units).items()}
    width = arrays["input_ids"].shape[1]
    roll: Callable[[str, Tensor], Tensor] = _to_the_left(arrays["block_ids"]) if left else _wider
    changed = {name: roll(name, a) if a.ndim == 2 and a.shape[1] == width else a for name, a in arrays.items()}
    with torch.inference_mode():
        before, after = model(**arrays), model(**changed)
    difference, scale = float((before - after).abs().max()), max(1.0, float(before.abs().max()))
    side = "left and right" if left else "less and more"
    return Check("padding", difference <= BATCHED * scale, f"{side}: outputs differ by at most {difference:.1e}")


def _to_the_left(block_ids: Tensor) -> Callable[[str, Tensor], Tensor]:
    lengths = (block_ids >= 0).sum(dim=1)

    def roll(_: str, array: Tensor) -> Tensor:
        shifts = (array.shape[1] - lengths).tolist()
        return torch.stack([row.roll(shift) for row, shift in zip(array, shifts, strict=True)])

    return roll


def _wider(name: str, array: Tensor) -> Tensor:
    fill = -1 if name == "block_ids" else 0
    return torch.cat([array, torch.full_like(array[:, :7], fill)], dim=1)


def _against(scorer: TorchScorer, other: Path, head_prefix: str | None, allow_pickle: bool) -> Check:
    """Compare with a checkpoint that may be of another format; the head's name is tried on both."""
    try:
        model = native.load(other, head_prefix=head_prefix, allow_pickle=allow_pickle)
    except CheckpointError:
        if head_prefix is None:
            raise
        model = native.load(other, allow_pickle=allow_pickle)
    mine, theirs = scorer.score(PROBES), TorchScorer(*model).score(PROBES)
    difference = _difference(mine, theirs)
    scale = _scale(theirs)
    moved = sum(not np.array_equal(a.scores.argsort(), b.scores.argsort()) for a, b in zip(mine, theirs, strict=True))
    seen = f"scores differ by at most {difference:.1e}; {moved} of {len(mine)} probes are ranked otherwise"
    return Check(f"against {other}", difference <= BATCHED * scale, seen)


def _accuracy(scorer: TorchScorer, data: Sequence[Preference]) -> Check:
    share = pairwise_summary(data, scorer.score([p.group for p in data])).accuracy
    seen = f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}] (n = {share.n:,} comparisons)"
    if share.low > 0.5:
        return Check("accuracy", True, seen)
    why = "no better than chance: a head that was newly initialised, another text format, or swapped labels"
    return Check("accuracy", False, f"{seen}; {why}")


def _scale(results: Sequence[GroupScores]) -> float:
    return max(1.0, *(float(np.abs(result.scores).max()) for result in results))


def _difference(one: Sequence[GroupScores], two: Sequence[GroupScores]) -> float:
    failed = next((r.error for r in (*one, *two) if r.error is not None), None)
    if failed is not None:
        raise CheckpointError(f"a probe could not be scored: {failed}")
    return max(float(np.abs(a.scores - b.scores).max()) for a, b in zip(one, two, strict=True))
