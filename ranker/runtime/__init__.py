"""Scoring with onnxruntime alone: the model file, its manifest, sessions, the ONNX scorer."""
