"""Native products do what the methods do in the long way, to the bit, and know when they must not."""

from __future__ import annotations

from types import BuiltinFunctionType
from typing import Any

import directions
import numpy as np
import pytest
import random_graphs
from engines import backends

import fastnet as fn
from fastnet.backends.c.backend import CBackend
from fastnet.backends.executor import Executor
from fastnet.backends.products import Directions
from fastnet.errors import FastnetError
from fastnet.losses.base import Loss

pytestmark = pytest.mark.skipif("c" not in backends(), reason="needs the backend c")

RNG = np.random.default_rng(11)
X, DX = RNG.standard_normal((2, 12, 5))
NUMBERS, LABELS, SHARES = RNG.standard_normal((12, 3)), RNG.integers(0, 3, 12), RNG.random((12, 3))
MODELS: dict[str, Any] = {
    "plain": lambda: [fn.Linear(5, 7), fn.Tanh(), fn.Linear(7, 3)],
    "rectified": lambda: [
        fn.Linear(5, 33),
        fn.ReLU(),
        fn.Linear(33, 17),
        fn.ReLU(),
        fn.Linear(17, 3),
    ],
    "in place": lambda: [fn.ReLU(), fn.Scale(5), fn.Linear(5, 3)],
    "dropout": lambda: [fn.Linear(5, 8), fn.ReLU(), fn.Dropout(0.4), fn.Linear(8, 3)],
    "batchnorm": lambda: [fn.Linear(5, 6), fn.BatchNorm1d(6), fn.PReLU(6), fn.Linear(6, 3)],
    "members": lambda: [fn.EnsembleView(3), fn.LinearEnsemble(5, 3, k=3), fn.EnsembleMean(3)],
}
LOSSES: dict[str, Any] = {
    "mse": (fn.MSELoss(), NUMBERS),
    "sum": (fn.HuberLoss(0.5, reduction="sum"), NUMBERS),
    "labels": (fn.CrossEntropyLoss(), LABELS),
    "shares": (fn.BCEWithLogitsLoss(), SHARES),
    "classes": (fn.CrossEntropyLoss(weight=[1.0, 2.0, 0.5]), LABELS),
}
# How arrays of a direction lie: as kernels have them, as NumPy makes them, or otherwise.
LAYOUTS: dict[str, Any] = {
    "kernels": lambda a: np.ascontiguousarray(a.T).T,
    "rows": np.ascontiguousarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
}
LOSS = fn.MSELoss()


def net(kind: str, dtype: str = "float32") -> fn.Sequential:
    return fn.Sequential(*MODELS[kind](), dtype=dtype, backend="c", seed=3)


def laid(v: Any, layout: str, dtype: Any) -> Any:
    return {name: LAYOUTS[layout](a.astype(dtype)) for name, a in v.items()}


def products(model: Any, loss: Any, x: Any, y: Any, dx: Any, v: Any) -> Any:
    """Two of each, the second by a way that the first has left."""
    found = []
    for _ in range(2):
        found += [model.jvp(x, dx), model.jvp(x, None, v), model.jvp(x, dx, v)]
        found += [model.hvp(loss, x, y, v), model.gnvp(loss, x, y, v)]
    return found


def short_and_long(monkeypatch: Any, run: Any) -> tuple[Any, Any]:
    """What it returns with native functions, and where every call goes the long way."""
    short = run()
    with monkeypatch.context() as patch:
        patch.setattr("fastnet.model.ways.Way.is_open", lambda way, model: False)
        patch.setattr(CBackend, "native_calls", False)
        return short, run()


def equal(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            equal(a, b)
    else:
        np.testing.assert_array_equal(one, other, strict=True)


def ways(model: Any) -> Any:
    """The functions of ways for products."""
    return {key[0]: way.call for key, way in model._ways.items() if type(key) is tuple}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", ["float32", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", MODELS)
def test_products_have_the_same_bits(kind, layout, given, dtype, monkeypatch):
    def run():
        model = net(kind, dtype)
        v = laid(directions.direction(model), layout, given)
        made = products(model, LOSS, X.astype(given), NUMBERS.astype(given), DX.astype(given), v)
        found = ways(model)
        assert found.keys() == {"jvp", "hvp", "gnvp"}
        if CBackend.native_calls:
            assert all(type(call) is BuiltinFunctionType for call in found.values())
        return made

    equal(*short_and_long(monkeypatch, run))


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_have_the_same_bits(loss, dtype, monkeypatch):
    def run():
        model, (of, y) = net("plain", dtype), LOSSES[loss]
        return products(model, of, X, y, DX, directions.direction(model))

    equal(*short_and_long(monkeypatch, run))


def test_random_graphs_have_the_same_bits(monkeypatch):
    for seed in range(40):
        tree = random_graphs.tree(seed)
        if "Squares" in str(tree):
            continue

        def run(tree=tree, seed=seed):
            model = random_graphs.fastnet_of(tree, dtype="float64", backend="c", seed=seed)
            if names := random_graphs.to_freeze(model, seed):
                model.freeze(*names)
            x, v = random_graphs.inputs(tree, 7, seed), directions.direction(model, 1)
            y = np.random.default_rng(seed).normal(size=(7, 2))
            return products(model, LOSS, x, y, x, v) if v else []

        equal(*short_and_long(monkeypatch, run))


def test_every_number_of_a_product_is_written(monkeypatch):
    """Whatever was in its memory before, also of a table of which rows are missing."""
    poison = Executor._run

    def run(self, number, *rest, **others):
        if number == 1 and isinstance(self, Directions):
            written = [p for p in self._moved if not p.cleared]
            for p in written:
                begin = p.offset // self.result.itemsize
                self.result[begin : begin + int(np.prod(p.shown))] = np.nan
        return poison(self, number, *rest, **others)

    monkeypatch.setattr(Executor, "_run", run)
    monkeypatch.setattr(CBackend, "native_calls", False)
    codes = np.concatenate([np.zeros((12, 1)), X], axis=1)
    table = fn.Sequential(fn.Embedding(4, 2), fn.Linear(7, 3), dtype="float64", backend="c", seed=0)
    tree = fn.HierarchicalSoftmax(4, 3)
    cases: list[Any] = [(table, LOSS, codes, NUMBERS)]
    cases += [(net(kind, "float64"), LOSS, X, NUMBERS) for kind in MODELS]
    cases.append((fn.Sequential(fn.Linear(5, 4), tree, backend="c"), fn.NLLLoss(), X, LABELS))
    for model, loss, x, y in cases:
        for product in (model.hvp, model.gnvp):
            for part in product(loss, x, y, directions.direction(model)).values():
                assert np.isfinite(part).all()


def test_where_nothing_is_curved():
    """No instruction writes these products; the memory of the one before has other numbers."""
    model, loss = fn.Sequential(fn.Linear(5, 3), backend="c", seed=0), fn.L1Loss()
    v = directions.direction(model)
    for _ in range(4):
        found = model.hvp(loss, X, NUMBERS, v)
        assert not any(array.any() for array in found.values())
        found["0.bias"].base.fill(np.nan)
        del found


def test_results_are_the_callers_own():
    """No later product changes them, nor do they change one; directions stay as they are."""
    model = net("rectified")
    v = laid(directions.direction(model), "kernels", "float32")
    before = {name: a.copy() for name, a in v.items()}
    x, y, dx = (a.astype(np.float32) for a in (X, NUMBERS, DX))
    first = products(model, LOSS, x, y, dx, v)[5:]
    copies = [{n: a.copy() for n, a in f.items()} for f in first if isinstance(f, dict)]
    products(model, LOSS, -x, y + 1, -dx, {n: a + 1 for n, a in v.items()})
    equal([f for f in first if isinstance(f, dict)], copies)
    for found in first:
        for array in found.values() if isinstance(found, dict) else found:
            assert array.flags.writeable
            array.fill(np.nan)
    again = products(model, LOSS, x, y, dx, v)[5:]
    equal([f for f in again if isinstance(f, dict)], copies)
    equal(v, before)


def test_the_rows_of_a_way_grow(monkeypatch):
    """Also where a runner for many rows is there before the way."""

    def run():
        model = net("plain", "float64")
        v, found = directions.direction(model), []
        big_x, big_y = np.tile(X, (50, 1)), np.tile(NUMBERS, (50, 1))
        model.hvp(LOSS, big_x, big_y, v, sample_weight=np.ones(600))
        for rows in (3, 12, 1, 600, 5):
            for _ in range(2):
                found.append(model.hvp(LOSS, big_x[:rows], big_y[:rows], v))
                found.append(model.jvp(big_x[:rows], None, v))
        if CBackend.native_calls:
            call = ways(model)["hvp"]
            assert call(big_x, big_y, v, 0) is not None
        return found

    equal(*short_and_long(monkeypatch, run))


def test_a_product_by_draws_is_that_of_the_next_forward():
    model = net("dropout", "float64")
    v = directions.direction(model)
    for _ in range(3):
        y, _ = model.jvp(X, DX)
        found = model.hvp(LOSS, X, NUMBERS, v)
        np.testing.assert_array_equal(y, model.forward(X))
        again = model.hvp(LOSS, X, NUMBERS, v)
        assert any((again[n] != found[n]).any() for n in v)  # the next forward draws otherwise


X32 = X.astype(np.float32)
OTHERS: dict[str, Any] = {
    "integers": lambda: (np.round(X * 9).astype(int), NUMBERS, DX),
    "bytes": lambda: (np.abs(np.round(X * 9)).astype(np.uint8), NUMBERS, DX.astype(np.uint8)),
    "halves": lambda: (X.astype(np.float16), NUMBERS.astype(np.float16), DX.astype(np.float16)),
    "lists": lambda: (X.tolist(), NUMBERS.tolist(), DX.tolist()),
    "strided": lambda: (np.repeat(X, 2, 0)[::2], np.repeat(NUMBERS, 2, 1)[:, ::2], DX[::-1]),
    "swapped": lambda: (X.astype(">f8"), NUMBERS.astype(">f4"), DX.astype(">f8")),
    "masked": lambda: (np.ma.masked_array(X), np.ma.masked_array(NUMBERS), DX),
    "read-only": lambda: tuple(np.asarray(memoryview(a).toreadonly()) for a in (X32, NUMBERS, DX)),
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_other_numbers_and_strides(other, dtype, monkeypatch):
    def run():
        model = net("rectified", dtype)
        v = directions.direction(model)
        products(model, LOSS, X, NUMBERS, DX, v)
        x, y, dx = OTHERS[other]()
        return products(model, LOSS, x, y, dx, v)

    equal(*short_and_long(monkeypatch, run))


def test_a_column_of_targets_may_be_a_vector(monkeypatch):
    def run():
        model = fn.Sequential(fn.Linear(5, 1), backend="c", seed=0)
        v, y = directions.direction(model), NUMBERS[:, 0]
        return [model.hvp(LOSS, X, t, v) for t in (y, y, y[:, None], y.astype(np.float32))]

    short, long = short_and_long(monkeypatch, run)
    equal(short, long)
    equal(short[0], short[2])


class Array(np.ndarray):
    """A kind of array of somebody else's."""


OTHER_DIRECTIONS: dict[str, Any] = {
    "halves": lambda v: {n: a.astype(np.float16) for n, a in v.items()},
    "integers": lambda v: {n: np.round(a * 9).astype(int) for n, a in v.items()},
    "lists": lambda v: {n: a.tolist() for n, a in v.items()},
    "subclass": lambda v: {n: a.view(Array) for n, a in v.items()},
    "order": lambda v: dict(reversed(v.items())),
    "model's own": lambda v: v,
}


@pytest.mark.parametrize("other", OTHER_DIRECTIONS)
def test_other_directions(other, monkeypatch):
    def run():
        model = net("plain")
        v = directions.direction(model)
        products(model, LOSS, X, NUMBERS, DX, v)
        v = model.named_parameters() if other == "model's own" else OTHER_DIRECTIONS[other](v)
        return products(model, LOSS, X, NUMBERS, DX, v)

    equal(*short_and_long(monkeypatch, run))


def dead(backend: str = "c") -> fn.Sequential:
    """A net of whose hidden units one is off for all rows, so that nothing shows its tangent."""
    model = fn.Sequential(fn.Linear(5, 4), fn.ReLU(), fn.Linear(4, 3), backend=backend, seed=0)
    with model.edit() as p:
        p["0.bias"][0] = -1e3
    return model


def bad_direction(number: float, layout: str = "kernels", dtype: str = "float32") -> Any:
    v = laid(directions.direction(dead("reference")), layout, dtype)
    v["0.weight"][0, 2] = number
    return v


GOOD = laid(directions.direction(dead("reference")), "kernels", "float32")
BAD: dict[str, Any] = {
    "NaN in x": (np.where(X32[3, 2] == X32, np.nan, X32), NUMBERS, DX, GOOD),
    "x too large": (X * 1e300, NUMBERS, DX, GOOD),
    "width of x": (X32[:, :4], NUMBERS, DX, GOOD),
    "no rows": (X32[:0], NUMBERS[:0], DX[:0], GOOD),
    "rows": (X32, NUMBERS[:5], DX[:5], GOOD),
    "targets": (X32, NUMBERS * np.inf, DX * np.inf, GOOD),
    "targets too large": (X32, NUMBERS * 1e200, DX * 1e200, GOOD),
    "width": (X32, NUMBERS[:, :2], DX[:, :2], GOOD),
    "NaN in v": (X32, NUMBERS, DX, bad_direction(np.nan)),
    "infinity in v": (X32, NUMBERS, DX, bad_direction(-np.inf, "rows")),
    "v too large": (X32, NUMBERS, DX, bad_direction(1e200, "rows", "float64")),
    "shape of v": (X32, NUMBERS, DX, {**GOOD, "0.weight": GOOD["0.weight"].T}),
    "name of v": (
        X32,
        NUMBERS,
        DX,
        {("1" + n if n == "0.bias" else n): a for n, a in GOOD.items()},
    ),
    "too few in v": (X32, NUMBERS, DX, {"0.weight": GOOD["0.weight"]}),
    "too many in v": (X32, NUMBERS, DX, {**GOOD, "3.weight": X32}),
    "text in v": (X32, NUMBERS, DX, {**GOOD, "0.bias": np.array(["a"] * 4)}),
    "v is a list": (X32, NUMBERS, DX, [GOOD]),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_arguments_get_the_same_errors(bad):
    """Of a model with ways, and of one without."""
    x, y, dx, v = BAD[bad]
    model, loss = dead(), fn.MSELoss()
    products(model, loss, X32, NUMBERS, DX, GOOD)
    for call in (
        lambda m: m.jvp(x, dx, v),
        lambda m: m.hvp(loss, x, y, v),
        lambda m: m.gnvp(loss, x, y, v),
    ):
        with np.errstate(all="ignore"):
            with pytest.raises(FastnetError) as raised:
                call(model)
            with pytest.raises(FastnetError) as expected:
                call(dead())
        assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_classes(label):
    model, loss = net("plain"), fn.CrossEntropyLoss()
    v = directions.direction(model)
    for _ in range(2):
        model.hvp(loss, X, LABELS, v)
    with pytest.raises(FastnetError, match=str(label)):
        model.hvp(loss, X, np.where(np.arange(12) == 4, label, LABELS), v)


def test_a_product_that_is_not_finite():
    model, big = net("plain"), NUMBERS * 1e38
    v = laid(directions.direction(model), "kernels", "float32")
    model.hvp(LOSS, X, NUMBERS, v)
    with pytest.raises(fn.DivergenceError, match="product"):
        model.hvp(LOSS, X, big, {n: a * 1e30 for n, a in v.items()})


def test_codes_are_checked_each_time():
    layers = fn.Embedding(4, 2), fn.Linear(6, 3)
    model = fn.Sequential(*layers, dtype="float64", backend="c", seed=0)
    codes = np.concatenate([(LABELS % 4)[:, None], X[:, :4]], axis=1)
    v, bad = directions.direction(model), codes.copy()
    bad[5, 0] = 77
    for _ in range(2):
        model.jvp(codes, None, v)
        model.hvp(LOSS, codes, NUMBERS, v)
    for call in (lambda: model.jvp(bad, None, v), lambda: model.hvp(LOSS, bad, NUMBERS, v)):
        with pytest.raises(FastnetError, match="codes"):
            call()


CHANGES: dict[str, Any] = {
    "edit": lambda m: m.load_state_dict({n: a + 0.5 for n, a in m.state_dict().items()}),
    "evaluation": lambda m: m.eval(),
    "one mode": lambda m: m[2].eval(),
    "frozen": lambda m: m.freeze("0.weight"),
    "threads": lambda m: fn.set_num_threads(fn.get_num_threads()),
    "another backend": lambda m: m.to("reference"),
    "there and back": lambda m: (m.to("reference"), m.to("c")),
    "new parameters": lambda m: m.reset_parameters(9),
    "a forward": lambda m: m.forward(X),
    "a fit": lambda m: fn.Trainer(m, LOSS, seed=0).fit(X, NUMBERS, epochs=2, verbose=0),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_between_calls_takes_effect(change, monkeypatch):
    def run():
        model = net("dropout", "float64")
        found = products(model, LOSS, X, NUMBERS, DX, directions.direction(model))
        CHANGES[change](model)
        return found + products(model, LOSS, X, NUMBERS, DX, directions.direction(model))

    equal(*short_and_long(monkeypatch, run))


def test_statistics_of_a_minibatch_stay_the_models():
    """A product in training mode starts from the model's running statistics, and moves none."""
    model = net("batchnorm", "float64")
    v = directions.direction(model)
    for _ in range(3):
        before = model.state_dict()
        model.jvp(X, None, v)
        model.hvp(LOSS, X, NUMBERS, v)
        equal(model.state_dict(), before)


def test_a_subclass_checks_its_own_targets():
    class Picky(fn.MSELoss):
        def target(self, y, shape, name="y"):
            if np.any(np.asarray(y) > 1):
                raise fn.errors.DataError(f"{name} is above 1")
            return super().target(y, shape, name)

    model, loss = net("plain"), Picky()
    assert isinstance(loss, Loss)
    v, low = directions.direction(model), np.minimum(NUMBERS, 0.5)
    for _ in range(2):
        model.hvp(loss, X, low, v)
    with pytest.raises(fn.errors.DataError, match="above 1"):
        model.hvp(loss, X, low + 5, v)


def test_targets_are_checked_before_they_are_rounded():
    """1 + 1e-12 is no probability, though float32 has 1 in its place."""
    model, loss = net("plain"), fn.BCEWithLogitsLoss()
    v = directions.direction(model)
    for _ in range(2):
        model.hvp(loss, X, SHARES, v)
    with pytest.raises(FastnetError, match="y"):
        model.hvp(loss, X, np.where(SHARES[0, 0] == SHARES, 1 + 1e-12, SHARES), v)
