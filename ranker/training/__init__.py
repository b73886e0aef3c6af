"""Losses, batches, the trainer and the run. One of the four rooms that may import torch."""
