"""Prediction on the fast path, which a thread takes from its second call on, and its way back."""

import gc
import sys
import weakref

import child
import numpy as np
import pytest

import fastnet as fn
from fastnet.model import runtime


@pytest.fixture
def model(backend):
    layers = [fn.Linear(5, 7), fn.BatchNorm1d(7), fn.Tanh(), fn.Linear(7, 3)]
    return fn.Sequential(*layers, backend=backend, seed=1)


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)


def warm(model, x):
    """The output, and a model whose predictor is ready and takes x without a detour."""
    model.predict(x)
    output = model._runtime.thread.fast_path(x, None)
    assert output is not None
    return output


def test_the_fast_path_gives_the_outputs_of_the_slow_one(model, x):
    first = model.predict(x, batch_size=100)
    np.testing.assert_allclose(warm(model, x), first, rtol=1e-6, atol=1e-7)
    out = np.full((600, 3), np.nan, np.float32)
    assert model.predict(x, out=out) is out
    np.testing.assert_array_equal(out, model.predict(x))


def test_the_fast_path_goes_on_with_another_number_of_threads(model, x):
    expected = warm(model, x)
    for count in (3, 1):
        with fn.threads(count):
            np.testing.assert_array_equal(model._runtime.thread.fast_path(x, None), expected)


@pytest.mark.parametrize(
    "other",
    [
        lambda x: x.astype(np.float64),
        lambda x: np.asfortranarray(x),
        lambda x: np.repeat(x, 2, axis=0)[::2],
        lambda x: x.view(type("Sub", (np.ndarray,), {})),
        lambda x: x.astype(">f4"),
        lambda x: (
            np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
        ),
        lambda x: x.tolist(),
    ],
    ids=["float64", "columns", "strided", "subclass", "foreign", "unaligned", "list"],
)
def test_what_is_no_plain_array_takes_the_slow_path_to_the_same_output(model, x, other):
    expected = warm(model, x)
    assert model._runtime.thread.fast_path(other(x), None) is None
    np.testing.assert_array_equal(model.predict(other(x)), expected)


def test_integers_are_converted(model):
    whole = np.arange(15, dtype=np.uint8).reshape(3, 5)
    expected = warm(model, whole.astype(np.float32))
    np.testing.assert_array_equal(model.predict(whole), expected)


def test_an_output_that_overlaps_the_input(backend):
    model = fn.Sequential(fn.Linear(4, 4), fn.ReLU(), backend=backend, seed=1)
    memory = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    x = memory[:8]
    expected = warm(model, x.copy())
    for out in (memory[:8], memory[1:]):
        held = memory.copy()
        np.testing.assert_array_equal(model.predict(x, out=out), expected)
        memory[:] = held


def test_an_output_by_columns_or_in_steps(model, x):
    expected = warm(model, x)
    for out in (np.empty((600, 3), np.float32, order="F"), np.empty((600, 6), np.float32)[:, ::2]):
        assert model.predict(x, out=out) is out
        np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 299, 599])
def test_what_is_not_finite_is_refused_and_the_output_left_alone(model, x, bad, where):
    warm(model, x)
    x[where, 2] = bad
    out = np.full((600, 3), 7, np.float32)
    with pytest.raises(fn.errors.DataError, match=rf"x holds 1 values .* index \({where}, 2\)"):
        model.predict(x, out=out)
    assert (out == 7).all()
    large = np.where(np.isfinite(x), x.astype(np.float64), 1e300)
    with pytest.raises(fn.errors.DataError, match="too large for float32"):
        model.predict(large)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_what_is_not_finite_is_found_wherever_it_is(backend, dtype, size):
    model = fn.Sequential(fn.Tanh(), backend=backend, dtype=dtype)
    x = np.linspace(-1, 1, size, dtype=dtype)[None]
    warm(model, x)
    for i in range(size):
        for bad in (np.nan, -np.inf):
            x[0, i], kept = bad, x[0, i]
            with pytest.raises(fn.errors.DataError, match=rf"index \(0, {i}\)"):
                model.predict(x)
            x[0, i] = kept


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_extreme_values_that_are_finite_pass(backend, dtype):
    model = fn.Sequential(fn.Tanh(), backend=backend, dtype=dtype)
    info = np.finfo(dtype)
    x = np.array([[info.max, -info.max, info.tiny, info.smallest_subnormal, -0.0]], dtype)
    np.testing.assert_allclose(warm(model, x), np.tanh(x), rtol=1e-6)


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (np.empty((600, 4), np.float32), "out is float32 of shape"),
        (np.empty((600, 3), np.float64), "out is float64"),
        ([[0.0]], "out is list"),
    ],
)
def test_a_wrong_output_is_refused(model, x, out, message):
    warm(model, x)
    with pytest.raises(fn.errors.ShapeError, match=message):
        model.predict(x, out=out)


def test_an_output_that_is_read_only_is_refused(model, x):
    out = warm(model, x).copy()
    out.flags.writeable = False
    with pytest.raises(fn.errors.ShapeError, match="read-only"):
        model.predict(x, out=out)


def test_no_rows_give_no_rows(model, x):
    warm(model, x)
    assert model.predict(x[:0]).shape == (0, 3)


def test_a_changed_parameter_reaches_the_next_prediction(model, x):
    before = warm(model, x)
    with model.edit() as parameters:
        parameters["1.weight"][:] = 0
        during = model.predict(x)
        parameters["1.weight"][:] = -1
    after = model.predict(x)
    assert not np.array_equal(before, during) and not np.array_equal(during, after)
    np.testing.assert_allclose(during, np.broadcast_to(during[0], during.shape), rtol=1e-6)


def test_a_net_without_arithmetic_hands_back_a_copy(backend, x):
    model = fn.Sequential(fn.Dropout(0.5), backend=backend)
    output = warm(model, x)
    np.testing.assert_array_equal(output, x)
    assert not np.may_share_memory(output, x)


def test_inputs_of_another_width_get_their_own_plan(backend, x):
    model = fn.Sequential(fn.Tanh(), backend=backend)
    for width in (5, 3, 5):
        part = np.ascontiguousarray(x[:, :width])
        np.testing.assert_allclose(model.predict(part), np.tanh(part), rtol=1e-6)


@pytest.mark.parametrize(
    "out",
    [
        np.empty((599, 3), np.float32),
        np.empty((600, 4), np.float32),
        np.empty((600,), np.float32),
        np.empty((600, 3), np.float64),
        np.empty((600, 3), ">f4"),
        np.empty((600, 3), np.float32, order="F"),
        np.empty((600, 6), np.float32)[:, ::2],
        np.frombuffer(bytearray(600 * 3 * 4 + 1), np.uint8)[1:].view(np.float32).reshape(600, 3),
        np.frombuffer(bytes(600 * 3 * 4), np.float32).reshape(600, 3),
        np.ma.zeros((600, 3), np.float32),
        bytearray(600 * 3 * 4),
        7,
    ],
    ids=lambda out: f"{type(out).__name__}{getattr(out, 'dtype', '')}{getattr(out, 'shape', '')}",
)
def test_the_fast_path_leaves_alone_what_is_no_plain_output(model, x, out):
    warm(model, x)
    before = np.array(out)
    assert model._runtime.thread.fast_path(x, out) is None
    np.testing.assert_array_equal(np.array(out), before)


@pytest.mark.parametrize("x", [None, 7, "x", np.float32(1), np.zeros((), np.float32), b"", [[1.0]]])
def test_the_fast_path_refuses_what_is_no_array(model, x):
    warm(model, np.ones((2, 5), np.float32))
    assert model._runtime.thread.fast_path(x, None) is None
    assert model._runtime.thread.fast_path(x, np.zeros((1, 3), np.float32)) is None


def test_arrays_and_executors_are_let_go(backend):
    x, out = np.ones((2, 5), np.float32), np.empty((2, 3), np.float32)
    held = weakref.ref(x)
    model = fn.Sequential(fn.Linear(5, 3), backend=backend)
    model.predict(x)
    references = sys.getrefcount(np.ndarray)
    for _ in range(100):
        model.predict(x, out=out)
        model.predict(x)
        model._runtime.thread.fast_path(x, 7)
    assert abs(sys.getrefcount(np.ndarray) - references) < 10
    del x
    assert held() is None
    ended = weakref.ref(model._runtime.predictor((5,), 2))
    del model
    gc.collect()
    assert ended() is None


def test_plans_are_bounded_and_one_in_use_stays(backend):
    x, y = np.ones((4, 6), np.float32), np.ones((4, 6), np.float32)
    model = fn.Sequential(fn.Tanh(), fn.ReLU(), backend=backend)
    twin = fn.Sequential(fn.Tanh(), fn.ReLU(), backend=backend)
    expected = [twin.forward(x), twin.backward(y)]
    output = model.forward(x)
    executors = weakref.WeakSet()
    for width in range(1, 41):
        rows = np.ones((4, width), np.float32)
        model.value_and_grad(fn.HuberLoss(), rows, rows)
        model.predict(rows)
        executors.update(model._runtime.kept.executors.values())
        executors.update(model._runtime.thread.executors.values())
    gc.collect()
    assert len(executors) <= 2 * runtime.KEPT + 1  # and the one that is in use
    assert len(runtime._plans) <= runtime.PLANS
    np.testing.assert_array_equal(output, expected[0])
    np.testing.assert_array_equal(model.backward(y), expected[1])
    for width in range(40, 40 - runtime.KEPT, -1):  # those used last are not made anew
        rows = np.ones((4, width), np.float32)
        model.value_and_grad(fn.HuberLoss(), rows, rows)
    assert set(model._runtime.kept.executors.values()) <= set(executors)


MEMMAP = """
import json, sys
import numpy as np
import fastnet as fn

model = fn.Sequential(fn.Linear(5, 7), fn.BatchNorm1d(7), fn.Linear(7, 3), backend=sys.argv[1], seed=1)
x = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
out = np.memmap(sys.argv[2], np.float32, "w+", shape=(600, 3))
given = np.memmap(sys.argv[2] + "x", np.float32, "w+", shape=(600, 5))
given[:] = x
same = []
for _ in range(2):
    out[:] = 0
    same += [model.predict(given, out=out) is out, out.tolist() == model.predict(x).tolist()]
print(json.dumps([sys.flags.optimize, *same]))
"""


@pytest.mark.parametrize("optimized", ["", "1"])
def test_a_memory_map_is_written_with_python_o_too(backend, optimized, tmp_path):
    found = child.run(MEMMAP, backend, tmp_path / "out", PYTHONOPTIMIZE=optimized)
    assert found == [len(optimized), True, True, True, True]
