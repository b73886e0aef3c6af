"""``export_onnx``: a checkpoint as one self-contained file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from ranker.api.rows import RowsLike, name_of, preferences_of
from ranker.atomic import output_errors
from ranker.config import ExportPrecision
from ranker.data.writers import check_folder
from ranker.errors import ConfigError, OutputError, nearest
from ranker.extras import require
from ranker.layouts.settings import text_settings
from ranker.progress import shown

if TYPE_CHECKING:
    from ranker.export.parity import ParityReport


def export_onnx(
    checkpoint: str | Path,
    path: str | Path = "model.onnx",
    *,
    precision: ExportPrecision = "fp32",
    rows: RowsLike | None = None,
    allow_loss: bool = False,
    key_lengths: bool = False,
    text: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> ParityReport:
    """Export a checkpoint to one self-contained ``model.onnx`` that needs no torch.

    The file is first compared with the torch model, on real rows and on batches of several shapes. fp32 logits must
    agree to 1e-4; int8 must keep ranks and decisions. Weights beyond 2 GB, which a file of this format cannot hold, go
    into one file beside it, ``model.onnx.data``; the two belong together. Of such models int8 has 8-bit weights alone,
    and the gate takes fewer rows.

    Args:
        checkpoint: a folder or a name on the model hub, of any format that ``ranker.load`` reads.
        path: the file that is written.
        precision: ``fp32``, ``fp16`` (GPU), ``int8`` or ``int8-static``.
        rows: labelled rows of the kind that will be scored; default the built-in sample.
        text: settings of the text, as in ``ranker.load``; the file keeps them.
        allow_loss: write an fp16 or int8 file even if it loses too much.
        key_lengths: of an fp16 file: attention gets the rows' lengths and no additive mask, so that more of CUDA's
            kernels can be chosen. For models with layers whose masks are padding only: pointwise and ordered_pair
            encoders other than DeBERTa and MPNet.
        progress: whether standard error shows how far it is.

    Returns:
        How the file compares with the torch model; it is stored in the file too.

    Raises:
        ConfigError: an unknown precision, ``key_lengths`` of another precision than fp16, or a setting of the text that
            the model does not have.
        ParityError: the file does not score like the checkpoint; nothing is written.
        ExportError: ``key_lengths`` of a model whose masks are more than padding.
        CheckpointError: the checkpoint is incomplete.

    Example:
        >>> report = ranker.export_onnx("checkpoint", "exported.onnx", rows="data/rows.jsonl")
        >>> report.max_difference < 1e-4
        True
    """
    if precision not in get_args(ExportPrecision):
        known = get_args(ExportPrecision)
        raise ConfigError(f"precision: expected {', '.join(known)}, got '{precision}'{nearest(precision, known)}")
    if key_lengths and precision != "fp16":
        raise ConfigError(f"key_lengths is for precision fp16, which is read on GPUs; got '{precision}'")
    require("onnx")
    if Path(path).is_dir():
        raise OutputError(f"{path}: expected the name of a file to write, got a folder")
    check_folder(Path(path).parent)
    from ranker.checkpoints import hub
    from ranker.export.parity import SAMPLE
    from ranker.export.write import export

    folder = hub.local(str(checkpoint))
    labelled = preferences_of("sample:validation" if rows is None else rows, single=True)
    with output_errors(path), shown(progress):
        reports = export(
            folder,
            {precision: Path(path)},
            rows=labelled,
            data=SAMPLE if rows is None else name_of(rows),
            on_loss="allow" if allow_loss else "refuse",
            text=text_settings(text),
            key_lengths=key_lengths,
        )
    return reports[precision]
