"""Scores and ids compared with the other side's own code."""
