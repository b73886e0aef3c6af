"""``ranker convert`` and ``ranker merge``: a reward model of any known format as a folder of another.

``triton`` takes a ``model.onnx`` and needs no torch.
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ranker.errors import CheckpointError
from ranker.extras import require


def run(source: str, target: str, to: str, *, head_prefix: str | None, allow_pickle: bool) -> None:
    """Convert, and say what was written and what could not be kept.

    Raises:
        CheckpointError: the source is not read, the target holds files, or the format cannot hold the model.
    """
    if to == "triton":
        require("ranker.serving.triton").write(Path(source), Path(target))
        Console().print(f"{target}: written; see: tritonserver --model-repository {target}")
        return
    require("transformers").utils.logging.disable_progress_bar()
    local = require("ranker.checkpoints.hub").local
    convert = require("ranker.checkpoints.convert").convert
    folder = local(source, allow_pickle=allow_pickle)
    notes = convert(folder, Path(target), to, head_prefix=head_prefix, allow_pickle=allow_pickle)
    console = Console()
    for note in notes:
        console.print(f"not kept as it was: {note}")
    console.print(f"{target}: written, read again and scored like the source; see: ranker inspect {target}")


def merge(adapter: str, target: str, to: str, *, head_prefix: str | None, allow_pickle: bool) -> None:
    """``run`` for an adapter, and for nothing else.

    Raises:
        CheckpointError: not an adapter; or as ``run``.
    """
    folder = require("ranker.checkpoints.hub").local(adapter, allow_pickle=allow_pickle)
    if not require("ranker.checkpoints.adapters").is_adapter(folder):
        raise CheckpointError(f"{adapter}: expected an adapter (adapter_config.json); whole models: ranker convert")
    run(adapter, target, to, head_prefix=head_prefix, allow_pickle=allow_pickle)
