#!/usr/bin/env bash
# scikit-learn 1.9.1: QuantileTransformer(output_distribution="normal") sends a frequent least value to -5.2.
#
# Equal values within a column get the middle of their ranks: 40 % zeros between smaller and larger numbers become
# 0.0. Equal values at the least one get the lowest rank instead, which is clipped to 1e-7 and becomes -5.199: a
# column in which 40 % are 0 and the others larger, as of counts or amounts, has two fifths of its rows five
# standard deviations away (the middle of their ranks would be -0.84). The column's mean is -1.69 and its standard
# deviation 2.91.
#
# Prints what 0 becomes in both columns, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "scikit-learn==1.9.1" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import numpy as np
import sklearn
from sklearn.preprocessing import QuantileTransformer

assert sklearn.__version__ == "1.9.1", sklearn.__version__
random = np.random.default_rng(0)


def zero_in(below, above):
    """What 0 becomes in a column of 400 zeros, with so many numbers below and above, and the column's spread."""
    parts = -1 - random.random(below), np.zeros(400), 1 + random.random(above)
    column = np.concatenate(parts)[:, None]
    quantiles = QuantileTransformer(n_quantiles=1000, output_distribution="normal").fit(column)
    found = quantiles.transform(column)
    return float(quantiles.transform([[0.0]])[0, 0]), float(found.mean()), float(found.std())


within, least = zero_in(300, 300), zero_in(0, 600)
print("0 within the column, its mean and deviation:", within)
print("0 as the least value, its mean and deviation:", least)
assert abs(within[0]) < 1e-6 and abs(least[0] + 5.199) < 1e-3, "this has changed"
assert abs(least[1] + 1.69) < 0.01 and abs(least[2] - 2.91) < 0.01, "this has changed"
PY
