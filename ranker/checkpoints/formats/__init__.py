"""Reward models of other trainers, read as ours and written as theirs: one module per format."""
