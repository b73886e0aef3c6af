"""``ranker``: finds the module of a command; errors are one line and an exit code."""

from __future__ import annotations

import importlib
import io
import logging
import os
import signal
import sys
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command_from_info
from typer.models import CommandInfo

import ranker
from ranker.errors import InterruptedRunError, OutputError, RankerError, nearest
from ranker.extras import missing_extra
from ranker.signals import NAMES, ignore, number_of, received, stop

COMMANDS: Final[dict[str, str]] = {
    "train": "train",
    "export": "export",
    "eval": "evaluate",
    "score": "score",
    "rank": "rank",
    "best-of-n": "best_of_n",
    "rank-with-ref": "rank_with_ref",
    "compare": "compare",
    "filter": "filter",
    "select": "select",
    "serve": "serve",
    "inspect": "inspect",
    "verify": "verify",
    "convert": "convert",
    "merge": "merge",
    "leaderboard": "leaderboard",
    "sample": "sample",
}
"""The commands, in the order of the help, and their modules in this package. Each module has a function ``main``."""


class CommandStoppedError(Exception):
    """A command that a signal ended; an ``Exception``, because click turns a ``KeyboardInterrupt`` into "Aborted!"."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Commands(TyperGroup):
    """The commands; one that a signal ends says so in one line."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names, in the order of the help."""
        return [*COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, whose module is imported here."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"ranker.cli.{COMMANDS[cmd_name]}")
        info = CommandInfo(name=cmd_name, callback=module.main)
        return get_command_from_info(info, pretty_exceptions_short=True, rich_markup_mode=None)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the arguments name.

        Raises:
            UsageError: no command has this name; the error names the nearest command.
        """
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            ctx.fail(f"No such command '{args[0]}'{nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            CommandStoppedError: Ctrl-C or SIGTERM.
        """
        try:
            return super().invoke(ctx)
        except InterruptedRunError as error:
            raise CommandStoppedError(str(error), error.exit_code) from error
        except KeyboardInterrupt as error:
            raise CommandStoppedError(f"stopped by {str(error) or 'Ctrl-C'}", 128 + number_of(error)) from error
        except RankerError:
            raise
        except Exception as error:  # code that was being imported makes its own failure of an interruption
            number = received()
            if number is None:
                raise
            raise CommandStoppedError(f"stopped by {NAMES[signal.Signals(number)]}", 128 + number) from error


app = typer.Typer(
    cls=Commands,
    name="ranker",
    help="Train, export and run rankers and reward models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def print_version(asked: bool) -> None:
    """Print the version and end, where it is asked for."""
    if asked:
        typer.echo(f"ranker-toolkit {ranker.__version__}")
        raise typer.Exit


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and debug logs")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="print the version and end", is_eager=True, callback=print_version)
    ] = False,
) -> None:
    """Options of every command."""
    os.environ["RANKER_DEBUG"] = "1" if debug else os.environ.get("RANKER_DEBUG", "")
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING, format="ranker: %(message)s", stream=sys.stderr
    )
    logging.getLogger("huggingface_hub").propagate = False  # it prints its warnings itself


def main() -> None:
    """Run the command line; a ``RankerError`` is one line on standard error and its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # whoever imports onnxruntime first in this process
    for number in (signal.SIGINT, signal.SIGTERM):  # remove temporary files and say what is kept
        signal.signal(number, stop)
    try:
        _run()
    except ModuleNotFoundError as error:
        missing = missing_extra(error)
        if missing is None:
            raise
        sys.exit(_say(missing))
    except (RankerError, CommandStoppedError, OSError) as error:
        sys.exit(_say(error))


def _run() -> None:
    """Run the command that the arguments name.

    Raises:
        CommandStoppedError: a signal came before the command was begun, which typer ends without a word.
    """
    try:
        app()
    except SystemExit as error:
        number = received()
        if error.code == 0:  # all is done, and what follows is Python's shutdown, which takes seconds beside torch
            ignore()
        if number is None or error.code == 0:
            raise
        raise CommandStoppedError(f"stopped by {NAMES[signal.Signals(number)]}", 128 + number) from error


def _say(error: RankerError | CommandStoppedError | OSError) -> int:
    """Print the line of an error; its exit code."""
    if isinstance(error, BrokenPipeError):  # the reader has ended, as ``head`` does
        _discard_output()
        return 1
    stopped = isinstance(error, CommandStoppedError)
    if stopped:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the process ends; another one would only break its clean-up
    if os.environ.get("RANKER_DEBUG"):
        raise error
    text = str(error)
    if isinstance(error, OSError) and not isinstance(error, RankerError):
        name = f"{error.filename}: " if error.filename else ""
        text = f"{name}{error.strerror or error}"
    typer.echo(f"ranker: {'' if stopped else 'error: '}{text}", err=True)
    if isinstance(error, OutputError | OSError):
        _discard_output()
    return getattr(error, "exit_code", OutputError.exit_code)


def _discard_output() -> None:
    """Let what is still to be written go nowhere: Python writes it when it ends, and would fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
