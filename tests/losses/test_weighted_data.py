"""`fit` minimises the weighted loss of the data: weights mean the same for every batch size."""

import copy

import numpy as np
import pytest

import fastnet as fn

N, CLASSES = 12, 3
RNG = np.random.default_rng(5)
X = RNG.standard_normal((N, 4))
LABELS = RNG.integers(0, CLASSES, N)
IGNORED = np.where(np.arange(N) % 4 == 1, -100, LABELS)
REALS = RNG.standard_normal((N, CLASSES))
W = RNG.uniform(0.0, 3.0, N)
W[[2, 3, 7]] = 0.0
V = np.array([0.25, 1.0, 4.0])
LR = 0.01

CASES = {  # a loss, its targets, sample weights, and the product of all weights of a row
    "samples": (fn.MSELoss(), REALS, W, W),
    "classes": (fn.CrossEntropyLoss(weight=V), LABELS, None, V[LABELS]),
    "ignored": (fn.CrossEntropyLoss(), IGNORED, None, 1.0 * (IGNORED >= 0)),
    "all": (
        fn.CrossEntropyLoss(weight=V, label_smoothing=0.1),
        IGNORED,
        W,
        V[LABELS] * (IGNORED >= 0) * W,
    ),
    "likelihood": (fn.NLLLoss(weight=V), IGNORED, W, V[LABELS] * (IGNORED >= 0) * W),
    "margins": (fn.MultiMarginLoss(weight=V), LABELS, W, W),
    "Huber": (fn.HuberLoss(0.3), REALS, W, W),
}
cases = pytest.mark.parametrize("case", CASES)


def net(backend, loss):
    layers = [fn.Linear(4, CLASSES), *([fn.LogSoftmax()] if isinstance(loss, fn.NLLLoss) else [])]
    return fn.Sequential(*layers, dtype="float64", backend=backend, seed=1)


def flat(arrays):
    return np.concatenate([np.ravel(v) for v in arrays.values()])


def gradient(model, loss, rows, y, w=None, **options):
    """Of a copy of the model, for these rows."""
    model = copy.deepcopy(model)
    model.value_and_grad(loss, X[rows], y[rows], sample_weight=w, **options)
    return flat(model.grads)


@cases
@pytest.mark.parametrize("batch_size", [1, 2, 5, N])
def test_a_step_of_each_minibatch_is_its_share_of_the_whole(backend, case, batch_size):
    """w ← w − lr·Σ_b wᵢ∇lᵢ/(B·w̄), by single rows whose gradients are those of PyTorch's sum."""
    loss, y, w, product = CASES[case]
    model = net(backend, loss)
    expected = copy.deepcopy(model)
    fn.Trainer(model, loss, fn.SGD(LR)).fit(
        X, y, batch_size=batch_size, sample_weight=w, shuffle=False, verbose=0
    )
    summed = type(loss)(**{**loss._config, "reduction": "sum"})
    for begin in range(0, N, batch_size):
        rows = slice(begin, begin + batch_size)
        g = gradient(expected, summed, rows, y, None if w is None else w[rows])
        g /= len(X[rows]) * product.mean() * (CLASSES if y is REALS else 1)  # a mean of elements
        at = 0
        with expected.edit() as values:
            for value in values.values():
                value[...] -= LR * g[at : at + value.size].reshape(value.shape)
                at += value.size
    np.testing.assert_allclose(flat(model.state_dict()), flat(expected.state_dict()), rtol=1e-9)


@cases
def test_a_loop_of_ones_own_equals_fit(backend, case):
    loss, y, w, product = CASES[case]
    fitted = net(backend, loss)
    looped, optimizer = copy.deepcopy(fitted), fn.SGD(LR)
    fn.Trainer(fitted, loss, fn.SGD(LR)).fit(
        X, y, batch_size=5, sample_weight=w, shuffle=False, verbose=0
    )
    for begin in range(0, N, 5):
        rows = slice(begin, begin + 5)
        looped.value_and_grad(
            loss,
            X[rows],
            y[rows],
            sample_weight=None if w is None else w[rows],
            weight_mean=product.mean(),
        )
        optimizer.step(looped)
    np.testing.assert_allclose(flat(looped.state_dict()), flat(fitted.state_dict()), rtol=1e-12)


@cases
def test_without_weight_mean_a_minibatch_divides_by_its_own_weights(backend, case):
    loss, y, w, product = CASES[case]
    model, rows = net(backend, loss), slice(0, 5)
    given = None if w is None else w[rows]
    np.testing.assert_allclose(
        gradient(model, loss, rows, y, given),
        gradient(model, loss, rows, y, given, weight_mean=product[rows].mean()),
        rtol=1e-12,
        atol=1e-15,
    )


@cases
@pytest.mark.parametrize("several", [2, 3])
def test_accumulation_is_a_larger_minibatch(backend, case, several):
    """Minibatches of weight 0 among them, which add nothing and repeat nothing."""
    loss, y, w, _ = CASES[case]
    w = np.ones(N) if w is None else w.copy()
    w[2:4] = 0.0  # a whole minibatch
    ends = []
    for size, steps in ((2, several), (2 * several, 1)):
        model = net(backend, loss)
        trainer = fn.Trainer(model, loss, fn.SGD(0.1))
        record = trainer.fit(
            X, y, 2, size, sample_weight=w, shuffle=False, accumulation_steps=steps, verbose=0
        ).records[-1]
        ends.append([*flat(model.state_dict()), record["loss"]])
    np.testing.assert_allclose(*ends, rtol=1e-10)


def own_sum(y, t):
    return np.sum((y - t) ** 2), 2 * (y - t)


@pytest.mark.parametrize("loss", [fn.MSELoss("sum"), fn.FunctionLoss(own_sum, "sum")])
def test_accumulated_sums_add_up(backend, loss):
    ends = []
    for size, steps in ((2, 3), (6, 1)):
        model = net(backend, loss)
        trainer = fn.Trainer(model, loss, fn.SGD(1e-3))
        trainer.fit(X, REALS, 2, size, shuffle=False, accumulation_steps=steps, verbose=0)
        ends.append(flat(model.state_dict()))
    np.testing.assert_allclose(*ends, rtol=1e-10)


def test_a_minibatch_of_weight_0_has_loss_0_and_no_gradient(backend):
    model = net(backend, fn.MSELoss())
    assert model.value_and_grad(fn.MSELoss(), X, REALS, sample_weight=0 * W, weight_mean=1.0) == 0
    assert not flat(model.grads).any()
    before = flat(model.state_dict()).copy()
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1))
    assert trainer.fit(X, REALS, sample_weight=0 * W, verbose=0).records[0]["loss"] == 0
    np.testing.assert_array_equal(flat(model.state_dict()), before)


@cases
def test_the_whole_data_set_is_no_matter_of_blocks(backend, case):
    loss, y, w, _ = CASES[case]
    ends = []
    for size in (5, N):
        model = net(backend, loss)
        fn.Trainer(model, loss).fit_full_batch(
            X, y, "gradient-descent", max_iter=3, batch_size=size, sample_weight=w
        )
        ends.append(flat(model.state_dict()))
    np.testing.assert_allclose(*ends, rtol=1e-9)


@pytest.mark.parametrize("bad", [0, -1.0, np.nan, "1", [1.0]])
def test_a_bad_weight_mean_is_refused(bad):
    model = net("c", fn.MSELoss())
    with pytest.raises(fn.errors.HyperparameterError, match=r"^weight_mean is"):
        model.value_and_grad(fn.MSELoss(), X, REALS, weight_mean=bad)


def test_a_sum_has_no_weight_mean():
    with pytest.raises(fn.errors.HyperparameterError, match=r"weight_mean .* reduction='sum'"):
        net("c", None).value_and_grad(fn.MSELoss("sum"), X, REALS, weight_mean=1.0)


def test_a_row_of_weight_0_adds_nothing_though_its_loss_is_infinite(backend):
    model = net(backend, fn.MSELoss())
    y, w = REALS.copy(), np.ones(N)
    y[3], w[3] = 1e200, 0.0
    value = model.value_and_grad(fn.MSELoss(), X, y, sample_weight=w)
    got = flat(model.grads).copy()
    kept = np.arange(N) != 3
    assert value == pytest.approx(model.value_and_grad(fn.MSELoss(), X[kept], y[kept]), rel=1e-12)
    np.testing.assert_allclose(got, flat(model.grads), rtol=1e-9)


class Older(fn.MSELoss):
    """A loss of one's own whose `emit` knows nothing of `by_rows`."""

    def emit(self, g, output, target, weight=None):
        return super().emit(g, output, target, weight)


def test_an_emit_without_by_rows_serves_where_it_is_not_needed(backend):
    ends = []
    for loss in (Older(), fn.MSELoss()):
        model = net(backend, loss)
        trainer = fn.Trainer(model, loss, fn.SGD(LR), seed=1)
        trainer.fit(X, REALS, batch_size=5, validation_data=(X, REALS, W), verbose=0)
        trainer.fit_full_batch(X, REALS, "gradient-descent", max_iter=2)
        model.value_and_grad(loss, X, REALS, sample_weight=W)
        ends.append([*flat(model.state_dict()), *flat(model.grads)])
    np.testing.assert_array_equal(*ends)
    summed = Older("sum")
    fn.Trainer(net(backend, summed), summed).fit(X, REALS, sample_weight=W, verbose=0)


def test_where_weights_need_it_the_error_says_what_to_write():
    model = net("c", None)
    wanted = r"^Older\.emit takes no by_rows, .*weight=None, \*, by_rows=False\)"
    trainer, before = fn.Trainer(model, Older()), flat(model.state_dict())
    with pytest.raises(fn.errors.UsageError, match=wanted):
        trainer.fit(X, REALS, sample_weight=W, verbose=0)
    with pytest.raises(fn.errors.UsageError, match=wanted):
        model.value_and_grad(Older(), X, REALS, weight_mean=2.0)
    np.testing.assert_array_equal(flat(model.state_dict()), before)
