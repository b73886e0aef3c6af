"""The ``Scorer`` protocol and the batches, token budget and passes behind every scorer."""
