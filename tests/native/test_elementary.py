"""exp, log, tanh, the logistic function, erf, sin, cos and relatives in C, in units in the last place."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FLAGS = ["-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
WORST = {
    "exp": 2,
    "exp_below_0": 2,
    "expm1": 4,
    "log": 2,
    "log1p": 4,
    "log1p_exp": 4,
    "tanh": 4,
    "sigmoid": 4,
    "erf": 4,
    "sin": 3,
    "cos": 3,
}
ANGLE = 1e6  # the largest for which sines and cosines are so good
SPECIAL = np.array([-np.inf, -1e30, -1.0, -1e-40, -0.0, 0.0, 1e-40, 1.0, 1e30, np.inf, np.nan])


@pytest.fixture(scope="module", params=["float32", "float64"])
def functions(request, tmp_path_factory):
    """The C functions of one dtype on arrays, for this machine."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("elementary") / "elementary.so"
    macros = ["-DLEVEL=0", f"-DREAL_IS_DOUBLE={int(request.param == 'float64')}"]
    flags = [*FLAGS, "-march=native", "-fPIC", "-shared", "-fno-builtin", f"-I{CSRC}", *macros]
    sources = [str(HERE / "elementary.c"), "-o", str(library)]
    subprocess.run([compiler, *flags, *sources], check=True, timeout=300)
    loaded = ctypes.CDLL(str(library))

    def call(name, x):
        x = np.ascontiguousarray(x, request.param)
        y = np.empty_like(x)
        pointers = (ctypes.c_void_p(a.ctypes.data) for a in (y, x))
        getattr(loaded, name)(*pointers, ctypes.c_int64(x.size))
        return y

    return np.dtype(request.param), call


def of_domain(name, x):
    """Numbers that the function is defined for, made of any."""
    return -np.abs(x) if name in ("exp_below_0", "log1p_exp") else x


def samples(name, dtype):
    """Dense sweeps and many magnitudes, where the function is defined and finite."""
    random = np.random.default_rng(0)
    spread = random.normal(size=200_000) * np.exp(random.uniform(-60, 4, 200_000))
    x = np.concatenate([np.linspace(-12, 12, 400_001), np.linspace(-700, 700, 100_001), spread])
    x = x.astype(dtype)
    top = {"float32": 88.7, "float64": 709.7}[dtype.name]
    if name == "log":
        return np.abs(x)[x != 0]
    if name == "log1p":
        return x[x > -1]
    if name in ("sin", "cos"):
        many = random.uniform(-1, 1, 400_000) * np.exp(random.uniform(0, 1, 400_000))
        x = np.concatenate([x, (ANGLE / np.e * many).astype(dtype)])
    x = of_domain(name, x)
    return x[x < top] if name in ("exp", "expm1") else x


def truth(name, x):
    """In long double, or of erf in float64 by the C library."""
    wide = x.astype(np.longdouble)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-wide))
    if name == "log1p_exp":
        return np.log1p(np.exp(wide))
    if name == "erf":
        return np.array([math.erf(v) for v in x.astype(np.float64)], np.longdouble)
    return getattr(np, "exp" if name == "exp_below_0" else name)(wide)


@pytest.mark.parametrize("name", WORST)
def test_errors_in_units_in_the_last_place(functions, name):
    dtype, call = functions
    x = samples(name, dtype)
    with np.errstate(under="ignore", over="ignore"):
        want = truth(name, x)
        nearest = want.astype(dtype)
    keep = np.isfinite(nearest)
    got, spacing = call(name, x)[keep], np.spacing(np.abs(nearest[keep])).astype(np.longdouble)
    ulps = np.abs(got - want[keep]) / spacing
    assert ulps.max() <= WORST[name], (float(x[keep][ulps.argmax()]), float(ulps.max()))


@pytest.mark.parametrize("name", WORST)
def test_special_values(functions, name):
    dtype, call = functions
    x = of_domain(name, SPECIAL.astype(dtype))
    if name in ("sin", "cos"):
        assert (np.abs(call(name, x[np.abs(x) == 1e30])) <= 1).all()
        x[np.abs(x) == 1e30] = 1e5
    with np.errstate(all="ignore"):
        want = truth(name, x).astype(dtype)
    got = call(name, x)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
    np.testing.assert_allclose(got, want, rtol=4 * np.finfo(dtype).eps, atol=0)
    if name in ("tanh", "erf", "sin"):  # odd
        np.testing.assert_array_equal(np.signbit(got[3:7]), np.signbit(x[3:7]))


@pytest.mark.parametrize(("name", "far"), [(n, f) for n in ("sin", "cos") for f in (1e8, 1e12)])
def test_large_angles(functions, name, far):
    """Absolute errors; even where numbers lie turns apart, the result is that of a number nearby."""
    dtype, call = functions
    x = np.random.default_rng(1).uniform(-far, far, 100_000).astype(dtype)
    error = np.abs(call(name, x) - truth(name, x)).max()
    assert error <= np.finfo(dtype).eps + far * 2.0**-52


@pytest.mark.slow
@pytest.mark.parametrize("name", WORST)
def test_all_over_float32(functions, name):
    dtype, call = functions
    if dtype != np.float32:
        pytest.skip("there are too many")
    step = 1009 if name == "erf" else 61
    for begin in range(0, 2**32, step << 20):
        bits = np.arange(begin, min(2**32, begin + (step << 20)), step, dtype=np.uint32)
        x = of_domain(name, bits.view(np.float32))
        if name in ("sin", "cos"):
            x = x[~(np.abs(x) > ANGLE)]
        with np.errstate(all="ignore"):
            want = truth(name, x.astype(np.float64)).astype(np.float64)
            nearest = want.astype(np.float32)
            keep = np.isfinite(nearest)
            got = call(name, x)
            ulps = np.abs(got[keep] - want[keep]) / np.spacing(np.abs(nearest[keep]))
        np.testing.assert_array_equal(got[~keep], nearest[~keep])
        assert ulps.max(initial=0) <= WORST[name]
