"""``ranker``: the verbs together; errors are one line and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Annotated

import typer

from ranker.cli import checkpoints, models, rows, serving
from ranker.errors import RankerError

app = typer.Typer(
    name="ranker",
    help="Train, export and run rankers and reward models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def options(debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and debug logs")] = False) -> None:
    """Options of every verb."""
    os.environ["RANKER_DEBUG"] = "1" if debug else os.environ.get("RANKER_DEBUG", "")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that only 4 bits on a CPU would use
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="ranker: %(message)s", stream=sys.stderr
    )


for _room in (rows, serving, models, checkpoints):
    _room.add(app)


def main() -> None:
    """Run the command line; a ``RankerError`` is one line on standard error and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")
    try:
        app()
    except RankerError as error:
        if os.environ.get("RANKER_DEBUG"):
            raise
        typer.echo(f"ranker: error: {error}", err=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
