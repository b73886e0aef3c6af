"""Losses: pure functions of scores and labels, unreduced; the trainer weighs and sums."""
