"""Products in bfloat16: how operands are rounded, on every engine, and what of that promises hold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from onecall import Call

from fastnet.layers.bfloat16_linear import round_to_bfloat16
from fastnet.layers.linear import linear
from fastnet.op import KERNELS, Array

TINY = np.finfo(np.float32).tiny  # the smallest number that is not denormal


def from_bits(*words: int) -> Array:
    return np.array(words, np.uint32).view(np.float32)


# Ties to even, both ways; next to a tie; overflow; infinity; the smallest number; zero; denormal ones.
SPECIAL = {
    0x3F808000: 0x3F800000,
    0x3F818000: 0x3F820000,
    0x3F808001: 0x3F810000,
    0x3F807FFF: 0x3F800000,
    0xBF818000: 0xBF820000,
    0x3FFF8000: 0x40000000,
    0x7F7F7FFF: 0x7F7F0000,
    0x7F7F8000: 0x7F800000,
    0xFF7FFFFF: 0xFF800000,
    0x7F800000: 0x7F800000,
    0xFF800000: 0xFF800000,
    0x00800000: 0x00800000,
    0x00000000: 0x00000000,
    0x007FFFFF: 0x00000000,
    0x00000001: 0x00000000,
}


def drawn(count: int = 4000) -> Array:
    """Numbers of all magnitudes but denormal ones, a quarter of them ties."""
    random = np.random.default_rng(5)
    words = random.integers(0, 2**32, count, np.uint32)
    words[::4] = words[::4] & 0xFFFF0000 | 0x8000
    numbers = words.view(np.float32)
    return numbers[np.isfinite(numbers) & (np.abs(numbers) >= TINY)]


def nearest(x: float) -> float:
    """The bfloat16 nearest to a float32, found among its neighbours in exact arithmetic; ties to even."""
    word = int(np.float32(x).view(np.uint32))
    below, above = word & 0xFFFF0000, (word & 0xFFFF0000) + 0x10000
    low = float(from_bits(below)[0])
    # Beyond the largest number stands the power of two that would come next.
    high = (
        math.copysign(2.0**128, x)
        if above & 0x7FFFFFFF == 0x7F800000
        else float(from_bits(above)[0])
    )
    down, up = abs(float(x) - low), abs(high - float(x))
    even = below if below & 0x10000 == 0 else above
    found = below if down < up else above if up < down else even
    return float(from_bits(found)[0])


def test_special_numbers_round_as_ieee_says():
    given, wanted = from_bits(*SPECIAL), from_bits(*SPECIAL.values())
    np.testing.assert_array_equal(round_to_bfloat16(given), wanted)
    assert np.signbit(round_to_bfloat16(from_bits(0x80000000, 0x80000001))).all()


@pytest.mark.parametrize("word", [0x7FC00000, 0x7F800001, 0xFFFFFFFF])
def test_nan_stays_nan(word):
    assert np.isnan(round_to_bfloat16(from_bits(word))).all()


def test_it_rounds_to_the_nearest():
    x = drawn()
    np.testing.assert_array_equal(round_to_bfloat16(x), np.array([nearest(v) for v in x], "f4"))


def test_float64_keeps_as_many_bits():
    x = drawn().astype(np.float64)
    x = x[np.abs(x) < 2.0**127]
    assert round_to_bfloat16(x).dtype == np.float64
    np.testing.assert_array_equal(round_to_bfloat16(x), round_to_bfloat16(x.astype("f4")))


def test_it_takes_any_shape_and_leaves_its_argument():
    x = drawn(60)[:48].reshape(6, 8)
    kept = x.copy()
    np.testing.assert_array_equal(round_to_bfloat16(x.T), round_to_bfloat16(x).T)
    np.testing.assert_array_equal(x, kept)


def call(
    phase: str, rows: int, dims: dict[str, int], tensors: dict[str, Array], **way: Any
) -> Call:
    return Call(KERNELS[f"bfloat16_linear_{phase}"], "float32", rows, dims, tensors, **way)


# Products with ones are the rounded operand: the kernel, rows, inputs, outputs, the operand, the result.
N = len(SPECIAL) + len(drawn(300))
ONE_OPERAND = [
    ("forward", (N, 1, 1), "x", "y"),
    ("forward", (1, 1, N), "w", "y"),
    ("vjp", (N, 1, 1), "dy", "dx"),
    ("vjp", (1, N, 1), "w", "dx"),
    ("vjp", (1, N, 1), "x", "dw"),
    ("vjp", (1, 1, N), "dy", "dw"),
]


@pytest.mark.parametrize(("phase", "sizes", "operand", "result"), ONE_OPERAND)
def test_every_engine_rounds_each_operand(engine, phase, sizes, operand, result):
    rows, inputs, outputs = sizes
    shapes = {"x": (rows, inputs), "w": (inputs, outputs), "dy": (rows, outputs)}
    given = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    numbers = np.concatenate([from_bits(*SPECIAL), drawn(300)])
    given[operand] = numbers.reshape(shapes[operand])
    absent = ("b",) if phase == "forward" else tuple({"dx", "dw", "db"} - {result})
    made = call(phase, rows, {"I": inputs, "O": outputs}, given, absent=absent).run(engine)
    np.testing.assert_array_equal(made[result].ravel(), round_to_bfloat16(numbers))


@pytest.mark.parametrize("rows", [1, 3, 40, 600])
def test_nan_and_infinity_go_through(engine, rows):
    dims = {"I": 5, "O": 37}
    x, w = np.ones((rows, 5), "f4"), np.ones((5, 37), "f4")
    x[0, 3], w[4, 36] = np.nan, np.inf
    y = call("forward", rows, dims, {"x": x, "w": w, "b": np.zeros(37, "f4")}).run(engine)["y"]
    assert np.isnan(y[0]).all() and np.isfinite(y[1:, :36]).all()
    assert np.isinf(y[1:, 36]).all()


# Few rows, odd numbers along k, several blocks of k and of rows, sums of blocks of rows.
SHAPES = [
    (1, 33, 70),
    (4, 1, 300),
    (5, 7, 3),
    (33, 1025, 65),
    (127, 2051, 33),
    (513, 45, 129),
    (700, 3, 5),
]


@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_gradients_are_those_of_rounded_operands(engine, rows, inputs, outputs):
    """Within 1e-5 of float64's products of the rounded operands, relative to the largest."""
    random = np.random.default_rng(3)
    x, w = random.normal(size=(rows, inputs)), random.normal(size=(inputs, outputs))
    dy, dims = random.normal(size=(rows, outputs)), {"I": inputs, "O": outputs}
    given = {"x": x.astype("f4"), "w": w.astype("f4"), "dy": dy.astype("f4")}
    rounded = {n: round_to_bfloat16(a).astype(np.float64) for n, a in given.items()}
    wanted = {n: np.empty(a.shape) for n, a in (("dx", x), ("dw", w))}
    linear.vjp(**wanted, db=np.empty(0), accumulate=0, **rounded)
    wanted["db"] = given["dy"].astype(np.float64).sum(0)
    got = call("vjp", rows, dims, given).run(engine)
    for name, want in wanted.items():
        assert np.abs(got[name] - want).max() <= 1e-5 * np.abs(want).max(), name
    y = call("forward", rows, dims, given, absent=("b",)).run(engine)["y"]
    want = rounded["x"] @ rounded["w"]
    assert np.abs(y - want).max() <= 1e-5 * np.abs(want).max()


def test_a_row_has_the_same_bits_in_any_batch(engine):
    """The ways of few and of many rows add up in one order."""
    if not hasattr(engine, "levels"):
        pytest.skip("a BLAS chooses the order")
    random, dims = np.random.default_rng(4), {"I": 301, "O": 83}
    x = random.normal(size=(40, 301)).astype("f4")
    given = {"w": random.normal(size=(301, 83)).astype("f4"), "b": np.ones(83, "f4")}
    whole = call("forward", 40, dims, {**given, "x": x}).run(engine)["y"]
    for rows in (1, 2, 3, 4, 5, 14, 15, 33):
        part = call("forward", rows, dims, {**given, "x": x[:rows]}).run(engine)["y"]
        assert part.tobytes() == whole[:rows].tobytes()
