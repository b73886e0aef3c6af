"""``ranker convert``."""

from __future__ import annotations

from typing import Annotated

import typer

from ranker.cli.options import AllowPickle, HeadPrefix, NewFolder, Text, To, text_of


def main(
    source: Annotated[str, typer.Argument(help="a reward model of any trainer: a folder or a hub name")],
    target: NewFolder,
    to: To = "native",
    head_prefix: HeadPrefix = None,
    allow_pickle: AllowPickle = False,
    text: Text = None,
) -> None:
    """Write a reward model in another format; its own loader then gives the same scores.

    Example: ranker convert my-openrlhf-rm my-rm --to hf
    """
    from ranker.api.checkpoints import convert
    from ranker.cli.terminal import say_converted

    notes = convert(source, target, to=to, head_prefix=head_prefix, allow_pickle=allow_pickle, text=text_of(text))
    say_converted(target, to, notes)
