"""Scores and comparisons to ranks: which pairs to compare, what follows from them, and the rounds in between."""
