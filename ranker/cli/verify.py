"""``ranker verify``."""

from __future__ import annotations

from typing import Annotated

import typer

from ranker.cli.options import AllowPickle, HeadPrefix
from ranker.errors import CheckpointError


def main(
    path: Annotated[str, typer.Argument(help="a checkpoint (a folder or a hub name), or a model.onnx")],
    against: Annotated[str | None, typer.Option(help="a checkpoint that must score the same")] = None,
    data: Annotated[str | None, typer.Option(help="labelled rows, for the accuracy")] = None,
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Load a checkpoint and prove it whole: tensors, head, padding and batches, checksums; exit code 4 if it is not.

    Compares every file with SHA256SUMS, and writes that file if it is missing. Of a model.onnx all hashes are computed.
    """
    from rich.console import Console

    from ranker.api.checkpoints import verify_checkpoint
    from ranker.cli.terminal import show

    checks = verify_checkpoint(path, against=against, rows=data, head_prefix=head_prefix, allow_pickle=allow_pickle)
    show(Console(), path, [(check.name, ("" if check.passed else "FAILED: ") + check.seen) for check in checks])
    failed = [check.name for check in checks if not check.passed]
    if failed:
        raise CheckpointError(f"{path}: {len(failed)} of {len(checks)} checks failed: {', '.join(failed)}")
