#!/usr/bin/env bash
# keras 3.15.1 on PyTorch: a product of float64 matrices is computed in float32.
#
# Also with keras.config.set_floatx("float64"): weights and the dtype policy are float64 then, but
# keras.ops.matmul of two float64 tensors returns float32, as keras.backend.result_type of the two says, which
# imitates JAX without its 64-bit mode. So a Dense layer of a float64 model has seven right digits.
#
# Prints dtypes and the greatest difference from NumPy's product, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "keras==3.15.1" "torch==2.13.0" "numpy>=2" 2> /dev/null
KERAS_BACKEND=torch "$work/venv/bin/python" -W ignore - <<'PY'
import keras
import numpy as np

assert keras.__version__ == "3.15.1", keras.__version__
keras.config.set_floatx("float64")
a, b = (np.random.default_rng(seed).normal(size=(5, 5)) for seed in range(2))
dense = keras.layers.Dense(5, use_bias=False)
dense.build((None, 5))
dense.kernel.assign(b)
found = dense(a)
lost = np.abs(keras.ops.convert_to_numpy(found) - a @ b).max()
print("weights:", dense.kernel.dtype, "output:", found.dtype, "greatest difference:", lost)
assert dense.kernel.dtype == "float64" and str(found.dtype) == "torch.float32", "this has changed"
assert 1e-9 < lost < 1e-5, "this has changed"
PY
