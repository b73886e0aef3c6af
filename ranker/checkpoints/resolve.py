"""How a folder is read: the ``LoadSpec`` of its format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints.detection import Files
from ranker.checkpoints.formats import words
from ranker.checkpoints.formats.checkpoint_format import OwnFormat
from ranker.checkpoints.formats.language_model import LanguageModel
from ranker.checkpoints.formats.registry import FORMATS, by_name, recognise
from ranker.checkpoints.formats.spec import LoadSpec
from ranker.checkpoints.inspection import inspect
from ranker.checkpoints.safety import read_json
from ranker.errors import CheckpointError


def resolve(
    folder: Path, *, head_prefix: str | None = None, allow_pickle: bool = False, text_format: str | None = None
) -> LoadSpec:
    """How a checkpoint is read: ours as it says itself, others as their format says after an inspection.

    Args:
        folder: the checkpoint; adapters are read by ``adapters.load``.
        head_prefix: the head's name, where it is not one of the known ones.
        allow_pickle: whether weights may be pickles.
        text_format: the text that a caller names; it makes a language model a judge that answers in words.

    Raises:
        CheckpointError: a format that is not read, a head that is not there, or a backbone that is not supported.
    """
    values = _config(folder)
    format_of_config = recognise(Files(values, frozenset(), {}))
    if isinstance(format_of_config, OwnFormat):
        return format_of_config.load_own(folder, values)
    report = inspect(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
    if isinstance(by_name(report.format), LanguageModel) and text_format in words.WORDS_OF:
        return words.judge(folder, values, report, text_format)
    fatal = next((problem for problem in report.problems if problem.fatal), None)
    if fatal is not None:
        raise CheckpointError(f"{folder}: {fatal}. See: ranker inspect {folder}")
    known = by_name(report.format)
    if not known.readable:
        foreign = [other.name for other in FORMATS if other.readable and not other.native]
        raise CheckpointError(
            f"{folder}: format '{known.name}' is not read as a reward model; expected ours, or {', '.join(foreign)}"
        )
    if known.needs_known_backbone and values.get("model_type") not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{folder}: backbone '{values.get('model_type')}' is not known to transformers; see: ranker inspect "
            f"{folder}"
        )
    return known.load(folder, values, report)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: expected a checkpoint folder with config.json, found none")
    return read_json(path)
