"""A model behind HTTP: requests of all clients are merged into batches, bounded in every direction."""
