"""A bundle on disk and under ONNX Runtime; neither torch nor onnx is needed for it."""
