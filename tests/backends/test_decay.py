"""The state of optimizers decays to zero, and not to denormal numbers, which are slow to compute with."""

from __future__ import annotations

import numpy as np
import pytest
from onecall import GROUP, Call

from fastnet.op import KERNELS

dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
with_state = pytest.mark.parametrize(
    "name", [n for n, k in KERNELS.items() if k.phase == "update" and len(k.op.state) > 1]
)


def updated(engine, name, dtype, w, g, **state):
    """w and the state after one step without weight decay, 33 elements alike."""
    kernel = KERNELS[name]
    numbers = {"w": w, "g": g, **{n: state.get(n, 0.0) for n in kernel.op.state if n != "w"}}
    tensors = {n: np.full(33, value, dtype) for n, value in numbers.items()}
    call = Call(kernel, dtype, 1, {"N": 33}, tensors)
    for hyper, value in {"weight_decay": 0.0, "shrink": 1.0, "eps": 1e-8}.items():
        if hyper in kernel.op.hyper:
            call.hyper[GROUP, kernel.op.hyper.index(hyper)] = value
    return call.run(engine)


@dtypes
@with_state
@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_become_denormal_becomes_zero(engine, name, dtype, sign):
    start = float(np.finfo(dtype).smallest_normal) * 1.0001
    first = list(KERNELS[name].op.state)[1]
    got = updated(engine, name, dtype, 1.0, 0.0, **{"v": start, first: sign * start})
    for tensor in set(got) - {"w"}:
        np.testing.assert_array_equal(got[tensor], 0, err_msg=tensor)
    np.testing.assert_array_equal(got["w"], 1)


@dtypes
@with_state
def test_what_stays_normal_stays(engine, name, dtype):
    start = float(np.finfo(dtype).smallest_normal) * 8
    for state in set(KERNELS[name].op.state) - {"w"}:
        got = updated(engine, name, dtype, 0.0, 0.0, **{state: start})
        assert (got[state] > start / 8).all(), state


@dtypes
@pytest.mark.parametrize("name", ["adam_update"])
def test_a_second_moment_that_scales_a_step_stays_denormal(engine, name, dtype):
    """Else m / (√v + eps) could jump where eps is tiny too."""
    denormal = float(np.finfo(dtype).smallest_normal) / 4
    got = updated(engine, name, dtype, 0.0, 0.0, m=1e-15, v=denormal)
    assert (got["v"] > denormal / 2).all()


@dtypes
@with_state
def test_nan_is_no_tiny_number(engine, name, dtype):
    got = updated(engine, name, dtype, 1.0, np.nan)
    for tensor, value in got.items():
        assert np.isnan(value).all(), tensor
