"""The same on a GPU: training steps, PyTorch's there, the device's rates, compute-sanitizer."""
