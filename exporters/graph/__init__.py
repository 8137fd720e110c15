"""From a module to an ONNX graph: traced, mended, put together."""
