"""Scores and comparisons to ranks: which pairs to compare, what follows from them, and the rounds in between."""

from ranker.ranking.ranks import Ranking, rank_scores

__all__ = ["Ranking", "rank_scores"]
