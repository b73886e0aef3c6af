"""The fastest batch sizes, kept between processes in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ranker.atomic import write_text
from ranker.runtime.session import cache_folder
from ranker.scoring.token_budget import TokenBudget

logger = logging.getLogger(__name__)

NAME: Final = "max_tokens_per_forward.json"


def remembered(choices: Sequence[int], facts: Mapping[str, str | int], *, workers: int = 1) -> TokenBudget:
    """A budget from an earlier process, or one that is tuned in this process and stored for the next.

    Args:
        choices: the budgets to try without a stored one.
        facts: everything that the speed depends on: the graph, where it runs, threads, versions.
        workers: passes that run at once.
    """
    key = hashlib.sha256(json.dumps({**facts, "workers": workers}, sort_keys=True).encode()).hexdigest()
    known = _read().get(key)
    return (
        TokenBudget((known,), workers=workers)
        if known is not None and known in choices
        else TokenBudget(choices, lambda best: _write(key, best), workers=workers)
    )


def file() -> Path:
    """The file of the stored budgets."""
    return cache_folder() / NAME


def _read() -> dict[str, int]:
    try:
        values = json.loads(file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RuntimeError) as error:  # no home folder is a RuntimeError
        logger.info("%s cannot be read (%s); batch sizes are tuned again", NAME, error)
        return {}
    known = values.items() if isinstance(values, dict) else ()
    return {key: value for key, value in known if isinstance(value, int) and value > 0}


def _write(key: str, best: int) -> None:
    try:
        target = file()
        target.parent.mkdir(parents=True, exist_ok=True)
        write_text(target, json.dumps(_read() | {key: best}, indent=1) + "\n")
    except (OSError, RuntimeError) as error:
        logger.info("%s cannot be written (%s); batch sizes are tuned again in the next process", NAME, error)
