"""Torch models to ``model.onnx``: graph, quantisation, parity. Imported as ``ranker.export``; may import torch."""
