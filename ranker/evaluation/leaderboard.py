"""Ratings of several models that answered the same prompts: Bradley-Terry strengths on the Elo scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ranker.data.sources import Source
from ranker.errors import DataError
from ranker.evaluation.statistics.bootstrap import interval, resampled, rows_by_prompt
from ranker.metrics import Estimate
from ranker.ranking.aggregation import Comparisons, bradley_terry
from ranker.records import BadRow

RESAMPLES: Final = 200
SCALE: Final = 400 / math.log(10)
CENTRE: Final = 1000.0
"""Elo's points per logit, and the mean of all models."""

SURE: Final = 30.0
"""Logits of a game that was won; a draw has 0."""

WINNERS: Final[Mapping[str, float]] = {"model_a": SURE, "a": SURE, "model_b": -SURE, "b": -SURE, "tie": 0.0}


@dataclass(frozen=True, slots=True)
class Game:
    """A comparison of two models: ``logit`` that the first was better. Games of one ``prompt`` are drawn together."""

    first: str
    second: str
    logit: float
    prompt: str


def read_leaderboard(source: str) -> dict[str, Estimate]:
    """Ratings of the models in a file of games, best first.

    Raises:
        DataError: a row without a game, or no row at all.
    """
    rows = []
    for where, row in Source.parse(source).rows():
        if isinstance(row, BadRow):
            raise row.error
        rows.append((where, row))
    if not rows:
        raise DataError(source, "rows", "expected at least one game, got none")
    return leaderboard(games(rows))


def games(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> list[Game]:
    """Games of rows with ``model_a``, ``model_b``, a ``winner`` (``WINNERS``) or ``logit``, and a ``prompt`` or ``id``.

    Raises:
        DataError: a row without these columns.
    """
    parsed = []
    for where, row in rows:
        for name in ("model_a", "model_b"):
            if not isinstance(row.get(name), str):
                raise DataError(where, name, f"expected a model's name, got {row.get(name)!r:.40}")
        winner, logit = str(row.get("winner", "")).partition(" ")[0], row.get("logit")
        if not isinstance(logit, int | float) or not math.isfinite(logit):
            if winner not in WINNERS:
                raise DataError(where, "winner", f"expected {', '.join(WINNERS)}, or a finite logit; got '{winner}'")
            logit = WINNERS[winner]
        if row["model_a"] == row["model_b"]:
            raise DataError(where, "model_b", f"expected another model than model_a, got '{row['model_b']}'")
        prompt = next((str(row[name]) for name in ("prompt", "id") if row.get(name) is not None), where)
        parsed.append(Game(row["model_a"], row["model_b"], float(logit), prompt))
    return parsed


def leaderboard(played: Sequence[Game], seed: int = 0) -> dict[str, Estimate]:
    """Ratings, best first, each with the 95 % interval over prompts and its number of games.

    A difference of 400 is odds of 10 to 1. Ratings of models that no chain of games connects cannot be compared. A draw
    without any game of one of the models is left out, because it would shift the ratings of all other models.
    """
    names = sorted({name for game in played for name in (game.first, game.second)})
    place = {name: number for number, name in enumerate(names)}
    _, prompts = np.unique([game.prompt for game in played], return_inverse=True)
    parts = rows_by_prompt(prompts)
    draws = []
    for picked in resampled(len(parts), RESAMPLES, seed):
        drawn = [played[i] for i in np.concatenate([parts[k] for k in picked])]
        if len({name for game in drawn for name in (game.first, game.second)}) == len(names):
            draws.append(_ratings(drawn, place))
    unknown = np.full(len(names), np.nan)
    low, high = interval(draws) if draws else (unknown, unknown)
    ratings = _ratings(played, place)
    counts = {name: sum(name in (game.first, game.second) for game in played) for name in names}
    return {
        names[i]: Estimate(float(ratings[i]), float(low[i]), float(high[i]), counts[names[i]])
        for i in np.argsort(-ratings, kind="stable").tolist()
    }


def _ratings(played: Sequence[Game], place: Mapping[str, int]) -> NDArray[np.float64]:
    seen = Comparisons(len(place))
    seen.add([(place[game.first], place[game.second]) for game in played], [game.logit for game in played])
    return CENTRE + SCALE * bradley_terry(seen).scores
