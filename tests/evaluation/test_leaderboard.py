import math

import numpy as np
import pytest
from scipy.optimize import minimize

from ranker.errors import DataError
from ranker.evaluation.leaderboard import CENTRE, SCALE, Game, games, leaderboard

STRENGTHS = {"strong": 1.0, "middle": 0.2, "weak": -1.2}


def played(count=400):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(count):
        a, b = rng.choice(list(STRENGTHS), 2, replace=False)
        chance = 1 / (1 + math.exp(-(STRENGTHS[a] - STRENGTHS[b])))
        winner = "tie" if rng.random() < 0.1 else "model_a" if rng.random() < chance else "model_b"
        rows.append((f"f:{i}", {"model_a": str(a), "model_b": str(b), "winner": winner, "id": str(i // 2)}))
    return games(rows)


def test_ratings_are_the_maximum_likelihood_of_bradley_and_terry():
    rows = played()
    ratings = leaderboard(rows)
    names = sorted(STRENGTHS)

    def loss(free):
        strength = dict(zip(names, np.append(free, -free.sum()), strict=True))
        total = 0.0
        for game in rows:
            lead = strength[game.first] - strength[game.second]
            won = 1 / (1 + math.exp(-game.logit))
            total += won * np.logaddexp(0, -lead) + (1 - won) * np.logaddexp(0, lead)
        return total

    free = minimize(loss, np.zeros(2)).x
    expected = dict(zip(names, CENTRE + SCALE * np.append(free, -free.sum()), strict=True))
    assert [*ratings] == ["strong", "middle", "weak"]
    for name, estimate in ratings.items():
        assert estimate.value == pytest.approx(expected[name], abs=0.5)
        assert estimate.low < estimate.value < estimate.high
    assert sum(e.n for e in ratings.values()) == 2 * len(rows)


def test_probabilities_of_a_judge_do_as_well_as_verdicts():
    ratings = leaderboard([Game("a", "b", 0.5, str(i)) for i in range(30)])
    assert ratings["a"].value - ratings["b"].value == pytest.approx(SCALE * 0.5, rel=1e-2)


def test_a_model_that_a_draw_misses_moves_no_one():
    rows = [Game("x", "y", 30.0 if i % 3 else -30.0, str(i)) for i in range(60)] + [Game("z", "x", 30.0, "last")]
    ratings = leaderboard(rows)
    assert ratings["x"].high - ratings["x"].low < 350
    assert ratings["z"].low > 1000
    assert [game.prompt for game in games([("f:1", {"model_a": "x", "model_b": "y", "logit": 1, "id": None})])] == [
        "f:1"
    ]


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"model_a": "x"}, "model_b"),
        ({"model_a": "x", "model_b": "y", "winner": "z"}, "winner"),
        ({"model_a": "x", "model_b": "y", "logit": float("nan")}, "winner"),
        ({"model_a": "x", "model_b": "x", "logit": 1.0}, "model_b"),
    ],
)
def test_a_bad_game_is_named(row, field):
    with pytest.raises(DataError, match=f"g:3: field '{field}'"):
        games([("g:3", row)])
