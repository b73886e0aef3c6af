"""Backbones, heads and models. One of the four rooms that may import torch."""
