"""The elementary functions of the Numba backend, in units of the last place, and where they end."""

from __future__ import annotations

import math

import numpy as np
import pytest

numba = pytest.importorskip("numba")

from fastnet.backends.numba import elementary  # noqa: E402

WIDER = {"float32": np.float64, "float64": np.longdouble}
RANGE = {"float32": (-103.0, 88.7), "float64": (-744.0, 709.7)}
# The largest error in units of the last place of a normal result.
ULPS = {"exp": {"float32": 1.5, "float64": 1.5}, "tanh": {"float32": 4, "float64": 4}}
ULPS["sigmoid"] = {"float32": 3.5, "float64": 3.5}
ULPS["expm1"] = {"float32": 3, "float64": 3}
ULPS["log"] = {"float32": 2, "float64": 2}
ULPS["log1p"] = {"float32": 3, "float64": 3}
ULPS["erf"] = {"float32": 3, "float64": 3}


def mapped(name, x):
    function = getattr(elementary, name)

    @numba.njit
    def over(y, x):
        for i in range(x.size):
            y[i] = function(x[i])

    y = np.empty_like(x)
    with np.errstate(all="ignore"):
        over(y, x)
    return y


def exact(name, x, dtype):
    x = x.astype(WIDER[dtype])
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    if name == "erf":
        return np.array([math.erf(v) for v in x], x.dtype)
    with np.errstate(all="ignore"):
        return getattr(np, name)(x)


def points(dtype):
    random = np.random.default_rng(0)
    count = 2000 if numba.config.DISABLE_JIT else 200_000
    low, high = RANGE[dtype]
    small = 10.0 ** random.uniform(-30, 1, count) * random.choice([-1, 1], count)
    return np.concatenate([random.uniform(low, high, count), small]).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(ULPS))
def test_error(name, dtype):
    x = points(dtype)
    x = x[x > {"log": 0, "log1p": -1}.get(name, -np.inf)]
    want = exact(name, x, dtype)
    tiny = np.finfo(dtype).smallest_normal
    unit = np.spacing(np.maximum(np.abs(want).astype(dtype), tiny))
    error = np.abs(mapped(name, x).astype(WIDER[dtype]) - want) / unit
    assert error.max() <= ULPS[name][dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", list(ULPS))
def test_special_values(name, dtype):
    biggest = np.finfo(dtype).max
    x = np.array([np.nan, np.inf, -np.inf, 0, -0.0, biggest, -biggest], dtype)
    with np.errstate(over="ignore"):
        want = exact(name, x, dtype).astype(dtype)
    np.testing.assert_array_equal(mapped(name, x), want)
