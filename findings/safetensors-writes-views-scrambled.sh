#!/usr/bin/env bash
# safetensors 0.8.0: safetensors.numpy.save writes a transposed or strided array as other numbers, silently.
#
# It takes the address and the number of bytes of an array, and its shape, and does not look at the strides. Of
# a transposed matrix the file has the numbers in the order of the memory under the shape of the view; of
# every third element of a vector it has the first elements. Nothing is raised, and the file is valid.
# safetensors.torch.save refuses such tensors. A NumPy weight in PyTorch's shape is often a transposed view.
#
# Prints what comes back for a.T and v[::3], and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "safetensors==0.8.0" "numpy==2.4.1" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import numpy as np
from safetensors.numpy import load, save

a, v = np.arange(6.0).reshape(2, 3), np.arange(12)
back = load(save({"transposed": a.T, "strided": v[::3]}))
print("a.T   is", a.T.tolist(), "and comes back as", back["transposed"].tolist())
print("v[::3] is", v[::3].tolist(), "and comes back as", back["strided"].tolist())
assert back["transposed"].tolist() == [[0, 1], [2, 3], [4, 5]], "this has changed"
assert back["strided"].tolist() == [0, 1, 2, 3], "this has changed"
PY
