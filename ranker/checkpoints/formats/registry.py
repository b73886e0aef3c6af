"""The formats that can be read and written, and the choice of a folder's reader."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from ranker.checkpoints.formats import armorm, classifiers, llama_factory, openrlhf, pairrm, steamshp, trlx
from ranker.checkpoints.formats.spec import LoadSpec, Reader, Writer
from ranker.checkpoints.inspection import inspect
from ranker.errors import CheckpointError

READERS: Final[dict[str, Reader]] = {
    "HF sequence classification": classifiers.read,
    "sentence-transformers CrossEncoder": classifiers.read_crossencoder,
    "HF token classification": classifiers.read_tokens,
    "OpenRLHF": openrlhf.read,
    "LLaMA-Factory value head": llama_factory.read,
    "trlx": trlx.read,
    "T5 (SteamSHP)": steamshp.read,
    "ArmoRM": armorm.read,
    "LLM-Blender PairRM": pairrm.read,
}
"""Readers by the formats' names in ``detection.FORMATS``."""

WRITERS: Final[dict[str, Writer]] = {
    "hf": classifiers.write_hf,
    "crossencoder": classifiers.write_crossencoder,
    "openrlhf": openrlhf.write_model,
    "llama-factory": llama_factory.write_model,
    "pairrm-hf": pairrm.write_model,
}
"""Writers by their names in ``ranker convert --to``, besides ``native``."""


def resolve(
    folder: Path, values: dict[str, Any], *, head_prefix: str | None = None, allow_pickle: bool = False
) -> LoadSpec:
    """How a foreign checkpoint is read.

    Args:
        folder: the checkpoint.
        values: its ``config.json``.
        head_prefix: the head's name, if it is not one of the known names.
        allow_pickle: whether weights may be pickles.

    Raises:
        CheckpointError: the format cannot be read, the head is missing, or the backbone is not supported.
    """
    facts = inspect(folder, head_prefix=head_prefix, allow_pickle=allow_pickle)
    fatal = [problem for problem in facts["problems"] if problem["fatal"]]
    if fatal:
        raise CheckpointError(
            f"{folder}: {fatal[0]['what']}. Repair: {fatal[0]['repair']}. See: ranker inspect {folder}"
        )
    if facts["format"] not in READERS:
        raise CheckpointError(
            f"{folder}: format '{facts['format']}' is not read as a reward model; expected ours, or "
            f"{', '.join(READERS)}"
        )
    if facts["format"] != "LLM-Blender PairRM" and values["model_type"] not in CONFIG_MAPPING:
        raise CheckpointError(
            f"{folder}: backbone '{values['model_type']}' is not known to transformers; see: ranker inspect {folder}"
        )
    return READERS[facts["format"]](folder, values, facts)
