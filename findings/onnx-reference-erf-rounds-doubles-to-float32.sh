#!/usr/bin/env bash
# onnx 1.23.2: the reference evaluator computes Erf of doubles in float32.
#
# Its Erf is numpy.vectorize(math.erf, otypes=["f"]), and casts the result back to the input's dtype. So the result
# of a double has seven right digits. onnxruntime 1.32.0 has no Erf for doubles at all, so that the one program that
# runs such a file is the less exact one.
#
# Prints the greatest difference from math.erf, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "onnx==1.23.2" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import math

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

assert onnx.__version__ == "1.23.2", onnx.__version__
ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [None]) for name in "xy"]
graph = helper.make_graph([helper.make_node("Erf", ["x"], ["y"])], "g", ends[:1], ends[1:])
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
onnx.checker.check_model(model, full_check=True)
x = np.linspace(0.1, 2, 100)
(found,) = ReferenceEvaluator(model).run(None, {"x": x})
lost = np.abs(found - [math.erf(v) for v in x]).max()
print(found.dtype, "greatest difference:", lost)
assert found.dtype == np.float64 and 1e-8 < lost < 1e-7, "this has changed"
PY
