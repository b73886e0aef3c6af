"""Checkpoints of whatever trainer: what they are, whether they are whole, and how they become another format."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ranker.api.rows import RowsLike, preferences_of
from ranker.atomic import output_errors
from ranker.errors import CheckpointError
from ranker.extras import require
from ranker.layouts.settings import text_settings

if TYPE_CHECKING:
    from ranker.checkpoints.report import Check, CheckpointReport


def inspect_checkpoint(
    path: str | Path,
    *,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> CheckpointReport:
    """What a checkpoint is, whether it is whole, and how to repair it.

    Only headers are read; no weight is loaded and no code of the checkpoint runs. Where torch is installed, a folder's
    headers are compared with its model, and ``example`` shows how it reads a question and an answer. Loading can still
    refuse values that are NaN, and an adapter, whose base is not opened here.

    Args:
        path: a folder or a name on the model hub.
        head_prefix: the head's name, where it is not one of the known ones.
        allow_pickle: also look into pickles (weights only), of a source that you trust.
        revision: of the hub: a branch, tag or commit.
        token: of the hub, for private repositories.

    Raises:
        CheckpointError: there is nothing to inspect.

    Example:
        >>> report = ranker.inspect_checkpoint("checkpoint")
        >>> report.format, report.readable, report.problems
        ('ranker pairwise', True, ())
    """
    require("safetensors")
    from ranker.checkpoints import hub

    report = hub.inspect_checkpoint(
        str(path), head_prefix=head_prefix, allow_pickle=allow_pickle, revision=revision, token=token
    )
    if find_spec("torch") is None or find_spec("transformers") is None or not Path(path).exists():
        return report
    from ranker.checkpoints.preflight import preflight

    folder = hub.local(str(path), allow_pickle=allow_pickle)
    return preflight(report, folder, head_prefix=head_prefix, allow_pickle=allow_pickle)


def verify_checkpoint(
    path: str | Path,
    *,
    against: str | Path | None = None,
    rows: RowsLike | None = None,
    head_prefix: str | None = None,
    allow_pickle: bool = False,
) -> list[Check]:
    """Load a checkpoint and prove it whole: tensors, head, padding and batches, checksums.

    Args:
        path: a folder or a name on the model hub; of a ``model.onnx`` all hashes are computed, those of weights beside
            it too.
        against: a checkpoint that must score the same.
        rows: labelled rows; an accuracy whose interval reaches 0.5 fails.
        head_prefix: the head's name, where it is not one of the known ones.
        allow_pickle: read pickled weights, of a source that you trust.

    Returns:
        One ``Check`` each, with ``passed`` and what was seen.

    Raises:
        CheckpointError: the checkpoint cannot be loaded at all.
        ModelFileError: the ``model.onnx``, or the weights beside it, are missing, damaged or changed.
    """
    if Path(path).suffix == ".onnx":
        return [_verified_file(Path(path))]
    require("transformers").utils.logging.disable_progress_bar()
    from ranker.checkpoints import hub, verify

    labelled = None if rows is None else preferences_of(rows)
    other = None if against is None else hub.local(str(against), allow_pickle=allow_pickle)
    folder = hub.local(str(path), allow_pickle=allow_pickle)
    return verify.verify(folder, against=other, data=labelled, head_prefix=head_prefix, allow_pickle=allow_pickle)


def _verified_file(path: Path) -> Check:
    """A model file whose hashes, those of the weights beside it too, are right."""
    from ranker.checkpoints.report import Check
    from ranker.runtime import manifest

    facts, _ = manifest.read(path, whole=True)
    beside = "" if facts.weights is None else f", and of {facts.weights.name}, {facts.weights.size:,} bytes"
    return Check("hashes", True, f"those of the graph, manifest and tokenizer{beside}")


def convert(
    source: str | Path,
    target: str | Path,
    *,
    to: str = "native",
    head_prefix: str | None = None,
    allow_pickle: bool = False,
    text: Mapping[str, Any] | None = None,
) -> tuple[str, ...]:
    """Write a reward model in another format; its own loader then gives the same scores.

    Args:
        source: a folder or a name on the model hub, of any format that ``ranker.load`` reads; for ``triton`` a
            ``model.onnx``.
        target: a new folder.
        to: ``native``, ``hf``, ``openrlhf``, ``crossencoder``, ``pairrm-hf``, ``llama-factory`` or ``triton``.
        head_prefix: the head's name, where it is not one of the known ones.
        allow_pickle: read pickled weights, of a source that you trust.
        text: settings of the text, as in ``ranker.load``; the new folder keeps them.

    Returns:
        What could not be kept as it was.

    Raises:
        ConfigError: an unknown format, or a setting of the text that the model does not have.
        CheckpointError: the source is not read, the target holds files, or the format cannot hold the model.
        OutputError: the target cannot be written.
    """
    if to == "triton":
        require("ranker.serving.triton").write(Path(source), Path(target))
        return ()
    require("transformers").utils.logging.disable_progress_bar()
    from ranker.checkpoints import convert as converting
    from ranker.checkpoints import hub

    folder = hub.local(str(source), allow_pickle=allow_pickle)
    settings = text_settings(text)
    options: dict[str, Any] = {"head_prefix": head_prefix, "allow_pickle": allow_pickle, "text": settings}
    with output_errors(target):
        return tuple(converting.convert(folder, Path(target), to, **options))


def merge_adapter(
    adapter: str | Path,
    target: str | Path,
    *,
    to: str = "native",
    head_prefix: str | None = None,
    allow_pickle: bool = False,
) -> tuple[str, ...]:
    """Write a LoRA or QLoRA adapter and its base model, in full precision, as one model; arguments as in ``convert``.

    Raises:
        CheckpointError: not an adapter, an adapter without its head, or as in ``convert``.
    """
    folder = require("ranker.checkpoints.hub").local(str(adapter), allow_pickle=allow_pickle)
    if not require("ranker.checkpoints.adapters").is_adapter(folder):
        raise CheckpointError(f"{adapter}: expected an adapter (adapter_config.json); whole models: ranker convert")
    return convert(folder, target, to=to, head_prefix=head_prefix, allow_pickle=allow_pickle)
