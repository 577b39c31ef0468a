"""The state of optimizers decays to zero, and not to denormal numbers, which are slow to compute with."""

from __future__ import annotations

import numpy as np
import pytest
from gradcheck import POSITIVE
from onecall import GROUP, Call

from fastnet.op import KERNELS

# Vectors that only grow, or have a least value, or are the last gradient.
LASTING = {("adagrad", "v"), ("adam_amsgrad", "top"), ("adamax", "u")}
LASTING |= {("rprop", "size"), ("rprop", "last")}
LASTING |= {("learned", "h"), ("learned", "c")}  # which an LSTM's gates move
LASTING |= {("to_average", "y"), ("show_average", "trained")}  # copies of the parameters
LASTING |= {("yellowfin_closed", "pushed")}  # a part of the last step


def decaying(op):
    """The vectors of a rule that decay."""
    return [name for name in op.state if name != "w" and (op.name, name) not in LASTING]


dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])
with_state = pytest.mark.parametrize(
    "name",
    [n for n, k in KERNELS.items() if k.phase == "update" and "w" in k.op.state and decaying(k.op)],
)


def updated(engine, name, dtype, w, g, **state):
    """w and the state after one step without weight decay, 33 elements alike."""
    kernel = KERNELS[name]
    numbers = {"w": w, "g": g, **{n: state.get(n, 0.0) for n in kernel.op.state if n != "w"}}
    tensors = {n: np.full(33, value, dtype) for n, value in numbers.items()}
    if "tuning" in kernel.tensors:
        tensors["tuning"] = np.full(16, 0.5)
    call = Call(kernel, dtype, 1, {"N": 33}, tensors)
    rest = {"weight_decay": 0.0, "shrink": 1.0, "decay": 0.0, "eps": 1e-8}
    if name == "lion_update":
        rest["lr"] = 0.0  # whose steps are as long however small m is
    for hyper, value in rest.items():
        if hyper in kernel.op.hyper:
            call.hyper[GROUP, kernel.op.hyper.index(hyper)] = value
    return call.run(engine)


@dtypes
@with_state
@pytest.mark.parametrize("sign", [1, -1])
def test_what_would_become_denormal_becomes_zero(engine, name, dtype, sign):
    start, op = float(np.finfo(dtype).smallest_normal) * 1.0001, KERNELS[name].op
    state = {n: start if (op.name, n) in POSITIVE else sign * start for n in decaying(op)}
    got = updated(engine, name, dtype, 1.0, 0.0, **state)
    for tensor in state:
        np.testing.assert_array_equal(got[tensor], 0, err_msg=tensor)
    np.testing.assert_array_equal(got["w"], 1)


@dtypes
@with_state
def test_what_stays_normal_stays(engine, name, dtype):
    start = float(np.finfo(dtype).smallest_normal) * 8
    for state in decaying(KERNELS[name].op):
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
        if (name, tensor) != ("muon_update", "w"):  # which a pass after it moves
            assert np.isnan(value).all(), tensor
