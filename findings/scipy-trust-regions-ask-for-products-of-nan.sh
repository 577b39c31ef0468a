#!/usr/bin/env bash
# SciPy 1.17.1: "trust-krylov" and "trust-ncg" ask hessp for products with NaN where the gradient is exactly zero.
#
# f = x² − y² + y⁴ has a saddle at (0, 0). With gtol=0 a trust-region method that starts there has the gradient 0 and a
# direction of negative curvature, along which it could step. Both methods divide the gradient by its norm instead, 0/0:
# hessp is called with vectors of NaN, under RuntimeWarnings of NumPy but without an error, and the methods stay at the
# saddle until maxiter.
#
# A hessp that refuses NaN, or takes it for divergence, ends the fit with a message that is about itself.
#
# Prints whether each method's directions are finite, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "scipy==1.17.1" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import numpy as np
import scipy
from scipy.optimize import minimize

assert scipy.__version__ == "1.17.1", scipy.__version__


def finite(method):
    """Whether all directions that the method hands to hessp are finite, and how it ends."""
    seen = []

    def product(x, p):
        seen.append(bool(np.isfinite(p).all()))
        return np.array([2.0, -2.0 + 12.0 * x[1] ** 2]) * p

    result = minimize(
        lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4,
        np.zeros(2),
        jac=lambda x: np.array([2.0 * x[0], -2.0 * x[1] + 4.0 * x[1] ** 3]),
        hessp=product,
        method=method,
        options={"gtol": 0.0, "maxiter": 5},
    )
    return all(seen), len(seen), result.x.tolist()


for method in ("trust-krylov", "trust-ncg"):
    found = finite(method)
    print(f"{method}: finite directions, products, end:", found)
    assert not found[0] and found[2] == [0.0, 0.0], "this has changed"
PY
