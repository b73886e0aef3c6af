"""Options that commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ranker.errors import ConfigError, nearest

Model = Annotated[
    str, typer.Option("--model", "--onnx", help="model.onnx, a checkpoint folder or a hub name (these need torch)")
]
Input = Annotated[
    str,
    typer.Option(
        "--input",
        "-i",
        help="a file (.jsonl, .csv, .tsv, .parquet, .arrow, also .gz), folder, pattern, NAME=FILE, or - for stdin",
    ),
]
Output = Annotated[
    str,
    typer.Option("--output", "-o", help="JSON lines, or Parquet (.parquet); .gz and .zst are compressed; - for stdout"),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column", help="name=column, where a column has another name; or a path: chosen=completions.0.response"
    ),
]
Device = Annotated[
    str,
    typer.Option(
        help="auto, cpu, cuda, cuda:1 or tensorrt; of a checkpoint also mps and xpu; cuda:0,cuda:1 score together"
    ),
]
Threads = Annotated[int | None, typer.Option(help="processor threads; default: all that this process may use")]
Option = Annotated[
    list[str] | None,
    typer.Option("--option", help="name=value, another option of ranker.load: precision=bf16, length_buckets=true"),
]
AverageOrders = Annotated[
    bool, typer.Option(help="read ordered pairs (PairRM, SteamSHP) in both orders; without it half the work")
]
Schedule = Annotated[
    str | None,
    typer.Option(
        help="compare in pairs: auto, all, knockout, quicksort, swiss, circulant, sequential_halving or active"
    ),
]
Budget = Annotated[int | None, typer.Option(help="most comparisons of a row, for auto, sequential_halving and active")]
Prefilter = Annotated[
    str | None, typer.Option(help="a cheaper model that scores first; only the best candidates go to --model")
]
Keep = Annotated[int, typer.Option(help="with --prefilter: how many candidates of a row go on")]
Rate = Annotated[float, typer.Option(help="exit with 3 when more than this share of the rows failed, or all of them")]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress bar")]
HeadPrefix = Annotated[str | None, typer.Option("--head-prefix", help="the head's name, where it is an unusual one")]
AllowPickle = Annotated[bool, typer.Option("--allow-pickle", help="read .bin weights, of a source you trust")]
Text = Annotated[
    list[str] | None,
    typer.Option(
        "--text", help="name=value, a setting of the model's text: format=trl, max_length=4096, tools=@tools.json"
    ),
]
To = Annotated[
    str,
    typer.Option("--to", help="native, hf, openrlhf, crossencoder, pairrm-hf, llama-factory; triton for a model.onnx"),
]
NewFolder = Annotated[str, typer.Argument(help="a new folder")]


def load_options(entries: list[str] | None) -> dict[str, Any]:
    """``--option name=value`` as keyword arguments of ``ranker.load``, values as JSON where they are.

    Raises:
        ConfigError: an entry without an equals sign, an unknown name, or one that has an option of its own.
    """
    from ranker.loading import LOAD_OPTIONS

    options: dict[str, Any] = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        if not equals or name not in LOAD_OPTIONS:
            hint = nearest(name, LOAD_OPTIONS)
            raise ConfigError(f"--option {entry}: expected name=value with an option of ranker.load{hint}")
        if name in NAMED:
            raise ConfigError(f"--option {entry}: it is --{name.replace('_', '-')}")
        options[name] = _json(value)
    return options


NAMED: Final = ("device", "threads", "average_orders", "text")
"""Options of ``ranker.load`` that commands name themselves."""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def text_of(entries: list[str] | None) -> dict[str, Any] | None:
    """``--text name=value`` as a mapping: values as JSON where they are, ``@file`` the content of a file.

    Raises:
        ConfigError: an entry without an equals sign, or a file that is not there.
    """
    settings: dict[str, Any] = {}
    for entry in entries or []:
        name, equals, value = entry.partition("=")
        if not equals:
            raise ConfigError(f"expected --text name=value, got '{entry}'; for example --text format=trl")
        if value.startswith("@"):
            file = Path(value[1:])
            if not file.is_file():
                raise ConfigError(f"--text {name}: found no file {file}")
            value = file.read_text(encoding="utf-8")
        settings[name] = _json(value)
    return settings or None


def columns_of(entries: list[str] | None) -> dict[str, str]:
    """``--column name=column`` as a mapping.

    Raises:
        ConfigError: an entry without an equals sign.
    """
    columns = {}
    for entry in entries or []:
        name, equals, column = entry.partition("=")
        if not equals:
            raise ConfigError(f"expected --column name=column, got '{entry}'; for example --column prompt=question")
        columns[name] = column
    return columns
