"""The ONNX format: its messages as bytes, and graphs of models as ONNX graphs."""
