"""Checkpoints: our own folder, and what is checked whenever one is read or written."""
