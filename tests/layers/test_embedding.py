"""Embedding: where its columns go, its gradients, and numbers that are no codes."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.data.codes import Code
from fastnet.errors import DataError, DivergenceError, HyperparameterError, ShapeError

RNG = np.random.default_rng(0)
COLORS, SIZES = RNG.integers(0, 5, 40), RNG.integers(0, 12, 40)
X = np.column_stack([COLORS, RNG.normal(size=40), SIZES, RNG.normal(size=40)])


def net(*layers, backend, dtype="float64"):
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=1)


def test_one_column(backend):
    model = net(fn.Embedding(12, 3, columns=2), backend=backend)
    assert model.state_dict()["0.weight"].shape == (12, 3)
    want = np.column_stack([X[:, [0, 1, 3]], model[0].weight[SIZES]])
    np.testing.assert_array_equal(model.predict(X), want)


@pytest.mark.parametrize("columns", [(0, 2), (2, 0), np.array([2, 0])], ids=repr)
def test_several_columns_with_tables_of_their_own(backend, columns):
    sizes = {0: (5, 2), 2: (12, 4)}
    counts, widths = zip(*(sizes[int(c)] for c in columns), strict=True)
    model = net(fn.Embedding(counts, widths, columns), backend=backend)
    tables = model[0].weight_0, model[0].weight_1
    assert [t.shape for t in tables] == [sizes[int(c)] for c in columns]
    parts = [t[X[:, int(c)].astype(int)] for t, c in zip(tables, columns, strict=True)]
    want = np.column_stack([X[:, [1, 3]], *parts])
    np.testing.assert_array_equal(model.predict(X), want)
    assert model.output_shape((4,)) == (8,)


def test_as_two_layers(backend):
    """The second one's columns are those of the first one's output."""
    first, second = fn.Embedding(5, 2), fn.Embedding(12, 4, columns=1)
    model = net(first, second, backend=backend)
    want = np.column_stack([X[:, [1, 3]], first.weight[COLORS], second.weight[SIZES]])
    np.testing.assert_array_equal(model.predict(X), want)


def test_gradients_reach_the_rows_that_were_used(backend):
    layers = [fn.Embedding([7, 12], [3, 2], [0, 2], unknown=True), fn.Linear(7, 1)]
    model = net(*layers, backend=backend)
    x = X.copy()
    x[3, 0] = 99
    model.zero_grad()
    model.forward(x)
    dx = model.backward(np.ones((40, 1)))
    weight = model[1].weight[0]
    np.testing.assert_array_equal(dx, np.tile([0, weight[0], 0, weight[1]], (40, 1)))
    codes = COLORS.copy()
    codes[3] = 7
    counts = np.bincount(codes, minlength=8)
    assert (counts[5:] == [0, 0, 1]).all()
    np.testing.assert_allclose(model.grads["0.weight_0"], counts[:, None] * weight[2:5], rtol=1e-12)


def test_sums_of_many_rows_lose_nothing_in_float32():
    """Of a million equal terms a running sum in float32 is off by a per cent."""
    model = net(fn.Embedding(2, 1), backend="reference", dtype="float32")
    if fn.backends()["c"].available:
        model.to("c")
    model.forward(np.zeros((1_000_000, 1), "f"))
    model.backward(np.full((1_000_000, 1), 0.1, "f"))
    np.testing.assert_allclose(model.grads["0.weight"], [[np.float32(0.1) * 1e6], [0]], rtol=1e-6)


NOT_CODES = [5, -1, 0.5, 2**24 + 1, -1e30, 4.0001]


@pytest.mark.parametrize("bad", NOT_CODES)
def test_what_is_no_code_is_refused(backend, bad):
    model = net(fn.Embedding(5, 2), fn.Linear(5, 1), backend=backend)
    trainer = fn.Trainer(model, fn.MSELoss(), seed=1)
    y = np.zeros((40, 1))
    model.predict(X)
    model.forward(X)
    model.value_and_grad(fn.MSELoss(), X, y)
    trainer.train_on_batch(X, y)
    trainer.fit(X, y, verbose=0)
    before = model.state_dict()
    x = X.copy()
    x[[7, 9], 0] = bad
    calls = {
        "x": [model.predict, model.forward, lambda x: model.value_and_grad(fn.MSELoss(), x, y)],
        "X": [lambda x: trainer.fit(x, y, verbose=0), lambda x: trainer.evaluate(x, y)],
        "x ": [lambda x: trainer.train_on_batch(x, y)],
    }
    for name, those in calls.items():
        message = (
            (
                rf"(?i)^{name.strip()} holds 2 values in column 0 that are no codes "
                rf"of layer 0 \(Embedding\); "
                rf"the first is {bad:g}.* in row 7, expected integers in \[0, 4\]; unknown=True gives"
            )
            if abs(bad) < 1e6
            else rf"(?i)^{name.strip()} holds 2 values in column 0"
        )
        for call in those:
            for _ in range(2):
                refused(lambda call=call: call(x), DataError, message)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("bad", NOT_CODES)
def test_an_unknown_slot_takes_all_others(backend, bad):
    model = net(fn.Embedding(5, 2, unknown=True), backend=backend)
    assert model[0].weight.shape == (6, 2)
    x = X.copy()
    x[7, 0] = bad
    got = model.predict(x)
    np.testing.assert_array_equal(got[7, 3:], model[0].weight[5])
    np.testing.assert_array_equal(np.delete(got, 7, 0), np.delete(model.predict(X), 7, 0))


def test_codes_of_the_second_layer_are_checked(backend):
    model = net(fn.Embedding(5, 2), fn.Embedding(12, 4, columns=1), backend=backend)
    x = X.copy()
    x[3, 2] = 12
    message = r"^x holds 1 values in column 2 that are no codes of layer 1 \(Embedding\)"
    refused(lambda: model.predict(x), DataError, message)


def double(*layers):
    return fn.Concat(fn.Sequential(*layers), fn.Identity())


IN_BLOCKS = {  # layers for X, and the column in which a code is missing
    "the second branch": ([fn.Concat(fn.Linear(4, 2), fn.Embedding(5, 2))], 0),
    "a nested model": ([fn.Sequential(fn.Sequential(fn.Embedding(12, 3, 2)))], 2),
    "behind a branch": ([double(fn.Linear(4, 3)), fn.Embedding(12, 3, 5)], 2),
    "behind an embedding": ([double(fn.Embedding(5, 2)), fn.Embedding(12, 3, 1)], 2),
    "of a residual block": (
        [fn.Residual(fn.Embedding(5, 2), fn.Linear(5, 4), shortcut=fn.Linear(4, 4))],
        0,
    ),
    "its shortcut": ([fn.Residual(fn.Linear(4, 5), shortcut=fn.Embedding(5, 2))], 0),
    "a gate": ([fn.Multiply(fn.Linear(4, 5), fn.Embedding(5, 2))], 0),
    "a sum": ([fn.Add(fn.Linear(4, 5), fn.Embedding(5, 2))], 0),
    "behind layers that change nothing": ([fn.Flatten(), fn.Identity(), fn.Embedding(5, 2)], 0),
}


@pytest.mark.parametrize("place", IN_BLOCKS)
def test_codes_are_checked_wherever_they_come_from_the_input(place, backend):
    layers, column = IN_BLOCKS[place]
    model = net(*copy.deepcopy(layers), backend=backend)
    assert np.isfinite(model.predict(X)).all()
    x = X.copy()
    x[3, column] = -1
    message = rf"^x holds 1 values in column {column} that are no codes of layer .* \(Embedding\)"
    for _ in range(2):
        refused(lambda: model.predict(x), DataError, message)
        refused(lambda: model.forward(x), DataError, message)
        np.testing.assert_array_equal(model.predict(X), model.predict(X, batch_size=7))


@pytest.mark.parametrize(
    "block",
    [
        fn.Residual(fn.Linear(4, 4)),
        fn.Add(fn.Identity(), fn.Identity()),
        fn.Multiply(fn.Identity(), fn.Linear(4, 4)),
        fn.Concat(fn.Linear(4, 3), fn.Identity()),
        fn.ReLU(),
    ],
    ids=lambda block: type(block).__name__,
)
def test_columns_that_a_layer_computes_are_not_checked(block, backend):
    model = net(copy.deepcopy(block), fn.Embedding(5, 2), backend=backend)
    assert model.predict(X + 0.25).shape[0] == len(X)


def test_predictions_go_a_short_way_once_the_columns_are_known(monkeypatch):
    """The second prediction does not come to `features`, unless a number is no code."""
    if not fn.backends()["c"].available:
        pytest.skip("only native functions are short ways")
    model = net(fn.Embedding(5, 2), backend="c")
    want = model.predict(X)
    seen, features = [], fn.Sequential.features
    monkeypatch.setattr(fn.Sequential, "features", lambda *a: seen.append(a) or features(*a))
    np.testing.assert_array_equal(model.predict(X), want)
    assert not seen
    x = X.copy()
    x[2, 0] = 5
    refused(lambda: model.predict(x), DataError, "that are no codes")
    assert seen


@pytest.mark.parametrize("inside", [False, True])
def test_a_model_whose_input_has_no_codes_goes_all_short_ways(inside):
    inner = fn.Linear(4, 4), fn.Embedding(5, 2)
    layers = [fn.Sequential(*inner)] if inside else inner
    assert not net(*layers, backend="reference")._runtime.coded
    assert net(fn.Embedding(5, 2), backend="reference")._runtime.coded


class Marked(fn.CustomLayer):
    """A layer of a user's own that reads codes."""

    reads_codes = True

    def find_codes(self, places, found):
        """The second column has them."""
        found.append(Code(places[1], 3, self.label, "count from 0"))
        return super().find_codes(places, found)

    def forward(self, x, saved):
        """The same numbers."""
        return x.copy()

    def backward(self, dy, saved):
        """The same numbers."""
        return dy.copy()


def test_layers_of_users_may_read_codes():
    model = net(Marked(), backend="reference")
    x = np.array([[0.5, 2.0], [0.5, 3.0]])
    message = (
        r"^x holds 1 values in column 1 that are no codes of layer 0 \(Marked\); the first is 3.0 in "
        r"row 1, expected integers in \[0, 2\]; count from 0$"
    )
    refused(lambda: model.predict(x), DataError, message)
    np.testing.assert_array_equal(model.predict(x[:1]), x[:1])


def test_a_model_may_take_inputs_of_several_widths(backend):
    model = net(fn.Embedding(5, 2, 1), backend=backend)
    for width in (4, 3, 2, 4):
        x = np.ones((6, width))
        assert model.predict(x).shape == (6, width + 1)
        x[2, 1] = 5
        refused(lambda x=x: model.predict(x), DataError, "column 1 that are no codes")


def test_elsewhere_what_is_no_code_gives_nan(backend):
    """Nothing is read outside the table, and nothing added to it."""
    model = net(fn.Linear(4, 4), fn.Embedding(5, 2, columns=1), backend=backend)
    got = model.forward(X)
    assert np.isnan(got[:, 3:]).all() and np.isfinite(got[:, :3]).all()
    model.zero_grad()
    model.backward(np.ones((40, 5)))
    np.testing.assert_array_equal(model.grads["1.weight"], np.zeros((5, 2)))
    trainer = fn.Trainer(model, fn.MSELoss(), seed=1)
    with pytest.raises(DivergenceError):
        trainer.fit(X, np.zeros((40, 5)), verbose=0)


def test_codes_may_be_integers(backend):
    model = net(fn.Embedding(200, 2), backend=backend)
    for kind in ("uint8", "int64", "float32"):
        x = np.arange(200)[:, None].astype(kind)
        np.testing.assert_array_equal(model.predict(x), model[0].weight)


WRONG = {
    "no columns": ((5, 2, []), {}, r"^columns is \[\]; expected at least one column"),
    "a column twice": ((5, 2, [1, 1]), {}, r"^columns is \[1, 1\]; expected at least one column"),
    "a negative column": ((5, 2, -1), {}, "^columns is -1; expected an integer"),
    "other sizes": (
        ([5, 6], 2, 0),
        {},
        "^num_embeddings is .*; expected an integer, or one for each",
    ),
    "other widths": ((5, [2, 3, 4], [0, 1]), {}, "^embedding_dim is .* of the 2 columns$"),
    "too many": ((2**24 + 1, 2), {}, "^num_embeddings is 16777217; expected an integer in"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arguments(case):
    given, options, message = WRONG[case]
    refused(lambda: fn.Embedding(*given, **options), HyperparameterError, message)


def test_a_missing_column_is_refused():
    message = r"^layer 0 \(Embedding\): rows of shape \(3,\) came; expected at least 4 features"
    layer = fn.Embedding(5, 2, columns=[0, 3])
    refused(lambda: fn.Sequential(layer).output_shape((3,)), ShapeError, message)


def test_training_learns_the_means_of_categories(backend):
    means = np.array([1.0, -2, 0.5, 3, -1])
    model = net(fn.Embedding(5, 1), fn.Linear(1, 1), backend=backend)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.05), seed=1)
    trainer.fit(X[:, :1], means[COLORS], epochs=200, batch_size=8, verbose=0)
    np.testing.assert_allclose(model.predict(np.arange(5.0)[:, None])[:, 0], means, atol=0.05)
