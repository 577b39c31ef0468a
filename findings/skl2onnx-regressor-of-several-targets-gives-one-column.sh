#!/usr/bin/env bash
# skl2onnx 1.20.0: a converted MLPRegressor of several targets gives one column.
#
# The converter ends the graph of every MLPRegressor with a Reshape to (−1, 1). For two targets and three rows the
# file's output has the shape (6, 1), where scikit-learn's predict gives (3, 2): the targets of a row come one below
# the other, and no error tells so.
#
# Prints both shapes, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "skl2onnx==1.20.0" "scikit-learn==1.9.1" \
    "onnx==1.23.2" "onnxruntime==1.32.0" 2> /dev/null
"$work/venv/bin/python" -W ignore - <<'PY'
import numpy as np
import onnxruntime
import skl2onnx
from sklearn.neural_network import MLPRegressor

assert skl2onnx.__version__ == "1.20.0", skl2onnx.__version__
x = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
net = MLPRegressor(hidden_layer_sizes=[5], max_iter=5, random_state=0).fit(x, x[:, :2])
file = skl2onnx.to_onnx(net, x[:1]).SerializeToString()
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
(found,) = session.run(None, {"X": x[:3]})
wanted = net.predict(x[:3])
print("scikit-learn:", wanted.shape, "the file:", found.shape)
assert wanted.shape == (3, 2) and found.shape == (6, 1), "this has changed"
np.testing.assert_allclose(found.reshape(3, 2), wanted, rtol=1e-5)
PY
