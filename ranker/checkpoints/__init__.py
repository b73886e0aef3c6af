"""Checkpoints: this package's folder, other trainers' formats, and the checks on reading and writing."""
