"""``ranker merge``."""

from __future__ import annotations

from typing import Annotated

import typer

from ranker.cli.options import AllowPickle, HeadPrefix, NewFolder, To


def main(
    adapter: Annotated[str, typer.Argument(help="a folder with a LoRA or QLoRA adapter")],
    target: NewFolder,
    to: To = "native",
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
) -> None:
    """Write an adapter and its base model, in full precision, as one model; an adapter without its head is refused.

    Example: ranker merge runs/pairrm/adapter merged
    """
    from ranker.api.checkpoints import merge_adapter
    from ranker.cli.terminal import say_converted

    notes = merge_adapter(adapter, target, to=to, head_prefix=head_prefix, allow_pickle=allow_pickle)
    say_converted(target, to, notes)
