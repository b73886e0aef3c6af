"""Scoring with only onnxruntime: the model file, its manifest, sessions, the ONNX scorer."""
