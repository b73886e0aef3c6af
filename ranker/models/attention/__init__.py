"""Attention under our masks: blocks and branches, rows without padding, DeBERTa's relative positions."""
