"""``ranker leaderboard``."""

from __future__ import annotations

from typing import Annotated

import typer


def main(
    source: Annotated[str, typer.Argument(help="rows: model_a, model_b, winner (or logit), id of the prompt")],
) -> None:
    """Rate models that answered the same prompts: Bradley-Terry on Elo's scale, with intervals."""
    from rich.console import Console

    from ranker.cli.terminal import show
    from ranker.evaluation.leaderboard import read_leaderboard

    ratings = read_leaderboard(source)
    rows = [
        (name, f"{rating.value:.0f} [{rating.low:.0f}, {rating.high:.0f}] (n={rating.n})")
        for name, rating in ratings.items()
    ]
    show(Console(), f"{source}: Bradley-Terry ratings on Elo's scale, mean 1000", rows)
