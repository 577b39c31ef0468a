"""Reductions, sample weights and the options of losses: gradients, and what they mean in training."""

from __future__ import annotations

import pickle

import gradcheck
import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, ShapeError

RANDOM = np.random.default_rng(3)
N, K = 7, 4
X = RANDOM.normal(size=(N, 5))
LABELS = np.array([0, 3, 1, 1, 2, 0, 3])
REALS = gradcheck.normal(RANDOM, (N, K))
UNIT = RANDOM.uniform(0.05, 0.95, (N, K))
ROWS = UNIT / UNIT.sum(axis=1, keepdims=True)
W = np.array([1.0, 0, 2, 0.5, 3, 0, 1])
V = [0.5, 1, 2, 0.25]

# What makes the loss, its targets, and the activation that the model ends with.
CASES = {
    "ce": (fn.CrossEntropyLoss, LABELS, None),
    "ce weight": (lambda **r: fn.CrossEntropyLoss(V, **r), LABELS, None),
    "ce ignore": (lambda **r: fn.CrossEntropyLoss(ignore_index=1, **r), LABELS, None),
    "ce smooth": (lambda **r: fn.CrossEntropyLoss(label_smoothing=0.3, **r), LABELS, None),
    "ce all": (
        lambda **r: fn.CrossEntropyLoss(V, ignore_index=3, label_smoothing=0.2, **r),
        LABELS,
        None,
    ),
    "ce soft": (fn.CrossEntropyLoss, ROWS, None),
    "ce soft all": (lambda **r: fn.CrossEntropyLoss(V, label_smoothing=0.2, **r), ROWS, None),
    "nll": (lambda **r: fn.NLLLoss(V, ignore_index=2, **r), LABELS, fn.LogSoftmax),
    **{
        f"{name} {p}": (lambda loss=loss, p=p, **r: loss(p, 0.8, V, **r), LABELS, None)
        for name, loss in (("margin", fn.MultiMarginLoss), ("hinge", fn.OneVsRestHingeLoss))
        for p in (1, 2)
    },
    "mse": (fn.MSELoss, REALS, None),
    "half mse": (fn.HalfMSELoss, REALS, None),
    "l1": (fn.L1Loss, REALS, None),
    "huber": (lambda **r: fn.HuberLoss(0.4, **r), REALS, None),
    "smooth l1": (lambda **r: fn.SmoothL1Loss(0.3, **r), REALS, None),
    "smooth l1 0": (lambda **r: fn.SmoothL1Loss(0, **r), REALS, None),
    "bce": (fn.BCELoss, UNIT, fn.Sigmoid),
    "bce logits": (fn.BCEWithLogitsLoss, UNIT, None),
    "bce pos_weight": (lambda **r: fn.BCEWithLogitsLoss(V, **r), UNIT, None),
    "kl": (fn.KLDivLoss, ROWS, fn.LogSoftmax),
    "kl log": (lambda **r: fn.KLDivLoss(log_target=True, **r), np.log(ROWS), fn.LogSoftmax),
    "rbf": (lambda **r: fn.RBFLoss(V, [0.5, 1, 2, 3], **r), REALS, None),
    "rbf 1": (fn.RBFLoss, REALS, None),
    "poisson": (fn.PoissonNLLLoss, LABELS[:, None] * UNIT, None),
    "poisson full": (lambda **r: fn.PoissonNLLLoss(full=True, **r), LABELS[:, None] * UNIT, None),
    "poisson rate": (
        lambda **r: fn.PoissonNLLLoss(False, True, **r),
        LABELS[:, None] * UNIT,
        fn.Sigmoid,
    ),
    "poisson rate full": (
        lambda **r: fn.PoissonNLLLoss(False, True, 0.2, **r),
        LABELS[:, None] * UNIT,
        fn.Sigmoid,
    ),
    "log cosh": (fn.LogCoshLoss, REALS, None),
    "pinball": (lambda **r: fn.PinballLoss([0.1, 0.5, 0.9, 0.3], **r), REALS, None),
    "pinball 1": (fn.PinballLoss, REALS, None),
    "gaussian": (fn.GaussianNLLLoss, REALS[:, :2], fn.Softplus),
    "gaussian full": (lambda **r: fn.GaussianNLLLoss(True, 0.2, **r), REALS[:, :2], fn.Softplus),
    "margin plain": (fn.MultiMarginLoss, LABELS, None),
    "hinge plain": (fn.OneVsRestHingeLoss, LABELS, None),
    "nll plain": (fn.NLLLoss, LABELS, fn.LogSoftmax),
    "hierarchical": (
        lambda **r: fn.HierarchicalSoftmaxLoss(ignore_index=2, **r),
        LABELS,
        lambda: fn.HierarchicalSoftmax(K, K, tree=[K, K, K + 1, K + 1, K + 1, -1]),
    ),
    "hierarchical plain": (fn.HierarchicalSoftmaxLoss, LABELS, fn.LogSoftmax),
}
cases = pytest.mark.parametrize("case", CASES)


def net(last, backend, dtype="float64"):
    layers = [fn.Linear(5, 6), fn.Tanh(), fn.Linear(6, K)] + ([last()] if last else [])
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=3)


@cases
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [None, W], ids=["plain", "weighted"])
def test_gradient(backend, case, reduction, weight):
    make, y, last = CASES[case]
    loss = make(reduction=reduction)
    gradcheck.check_loss_gradient(net(last, backend), loss, X, y, sample_weight=weight)


@pytest.mark.parametrize("case", ["kl", "kl log"])
@pytest.mark.parametrize("weight", [None, W], ids=["plain", "weighted"])
def test_gradient_of_batchmean(backend, case, weight):
    make, y, last = CASES[case]
    loss = make(reduction="batchmean")
    gradcheck.check_loss_gradient(net(last, backend), loss, X, y, sample_weight=weight)


@cases
@pytest.mark.parametrize("weight", [None, W], ids=["plain", "weighted"])
def test_gradient_of_single_losses(case, weight):
    """Each element's derivative of Σ d·losses, for a gradient d that is another for each loss."""
    make, y, last = CASES[case]
    loss, output = make(reduction="none"), net(last, "reference").forward(X)
    d = gradcheck.normal(np.random.default_rng(7), loss.forward(output, y, weight).shape)
    numeric = np.zeros_like(output)
    for place in np.ndindex(output.shape):
        for h in (1e-5, -1e-5):
            moved = output.copy()
            moved[place] += h
            numeric[place] += (d * loss.forward(moved, y, weight)).sum() / (2 * h)
    loss.forward(output, y, weight)
    np.testing.assert_allclose(loss.backward(d), numeric, rtol=1e-6, atol=1e-8)


def test_every_option_of_every_loss_is_in_a_case():
    """Once at least with a value other than its default."""
    made = [make() for make, _, _ in CASES.values()]
    losses = {v for v in vars(fn.losses).values() if isinstance(v, type) and issubclass(v, fn.Loss)}
    assert {type(loss) for loss in made} == losses - {fn.Loss, fn.EnsembleLoss, fn.FunctionLoss}
    for kind in {type(loss) for loss in made}:
        own = [repr(loss) for loss in made if type(loss) is kind]
        for name in kind()._config.keys() - {"reduction"}:
            assert any(f"{name}=" in text for text in own), (kind, name)


@cases
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weight", [None, W], ids=["plain", "weighted"])
def test_alone_is_as_in_a_model(backend, case, reduction, weight):
    make, y, last = CASES[case]
    loss, model = make(reduction=reduction), net(last, backend)
    output = model.forward(X)
    value = loss.forward(output, y, weight)
    assert model.value_and_grad(loss, X, y, sample_weight=weight) == pytest.approx(value, rel=1e-13)
    direct = {name: grad.copy() for name, grad in model.grads.items()}
    model.zero_grad()
    model.backward(loss.backward())
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grad, direct[name], rtol=1e-11, atol=1e-14)


@cases
def test_none_is_what_the_sum_adds_up(case):
    make, y, last = CASES[case]
    output = net(last, "reference").forward(X)
    single, total = make(reduction="none"), make(reduction="sum")
    for weight in (None, W):
        losses = single.forward(output, y, weight)
        assert losses.shape in ((N,), y.shape)
        assert losses.sum() == pytest.approx(total.forward(output, y, weight), rel=1e-13)
        np.testing.assert_allclose(single.backward(), total.backward(), rtol=1e-12, atol=1e-15)
        single.forward(output, y, weight)
        np.testing.assert_allclose(
            single.backward(np.full(losses.shape, 3.0)),
            3 * total_gradient(total, output, y, weight),
        )


def total_gradient(loss, output, y, weight):
    loss.forward(output, y, weight)
    return loss.backward()


@cases
def test_a_weight_of_two_is_a_row_twice(backend, case):
    make, y, last = CASES[case]
    model, loss, twice = net(last, backend), make(), [0, 1, 2, 2, 3, 4, 5, 6]
    weight = np.ones(N)
    weight[2] = 2
    value = model.value_and_grad(loss, X, y, sample_weight=weight)
    grads = {name: grad.copy() for name, grad in model.grads.items()}
    assert value == pytest.approx(model.value_and_grad(loss, X[twice], y[twice]), rel=1e-13)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grads[name], grad, rtol=1e-11, atol=1e-14)


@cases
def test_where_all_weights_are_0_there_is_nothing(backend, case):
    make, y, last = CASES[case]
    model = net(last, backend)
    for reduction in ("mean", "sum"):
        loss = make(reduction=reduction)
        assert model.value_and_grad(loss, X, y, sample_weight=np.zeros(N)) == 0
        assert not any(grad.any() for grad in model.grads.values())


def test_where_all_rows_are_ignored_there_is_nothing(backend):
    for loss in (fn.CrossEntropyLoss(), fn.CrossEntropyLoss(V, ignore_index=-7), fn.NLLLoss()):
        model = net(None, backend)
        y = np.full(N, loss.ignore_index)
        assert model.value_and_grad(loss, X, y) == loss.forward(REALS, y) == 0
        assert not any(grad.any() for grad in model.grads.values())
        assert not loss.backward().any()
        trainer = fn.Trainer(model, loss)
        assert trainer.fit(X, y, verbose=0).history["loss"] == [0.0]


@cases
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_fit_and_evaluate(backend, case, reduction):
    """With a rate of 0 the epoch's loss is evaluate's, whatever the minibatches."""
    make, y, last = CASES[case]
    model, loss = net(last, backend), make(reduction=reduction)
    trainer = fn.Trainer(model, loss, fn.SGD(lr=0.0), seed=0)
    for weight in (None, W):
        data = {"sample_weight": weight, "validation_data": (X, y, weight)}
        history = trainer.fit(X, y, batch_size=3, verbose=0, **data).records[-1]
        expected = trainer.evaluate(X, y, sample_weight=weight)["loss"]
        assert expected == pytest.approx(loss.forward(model.predict(X), y, weight), rel=1e-12)
        assert history["loss"] == pytest.approx(expected, rel=1e-12)
        assert history["val_loss"] == expected


def test_weights_follow_their_rows(backend):
    """Rows of weight 0 leave no trace, however they are shuffled."""
    y = REALS.copy()
    y[W == 0] = 1e6
    weights = [W, W * 7]
    models = [net(None, backend) for _ in weights]
    for model, weight in zip(models, weights, strict=True):
        trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(lr=0.1), seed=1)
        trainer.fit(X, y, epochs=5, batch_size=2, sample_weight=weight, verbose=0)
    a, b = (np.concatenate([p.ravel() for p in model.parameters()]) for model in models)
    np.testing.assert_allclose(a, b, rtol=1e-10)
    assert np.abs(a).max() < 10


def test_accuracy_leaves_ignored_rows_out():
    y = np.array([0, -100, 1, -100])
    assert fn.accuracy(y, np.eye(4, 3)) == 0.5
    assert fn.accuracy(np.eye(3)[[0, 1, 1]], np.eye(3)) == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (W[:3], ShapeError, r"^sample_weight has shape \(3,\), expected \(7,\)"),
        (W[:, None], ShapeError, r"^sample_weight has shape \(7, 1\), expected \(7,\)"),
        (-W, DataError, "^sample_weight holds -3.0; expected weights of at least 0"),
        (W * np.nan, DataError, "^sample_weight holds 7 values that are NaN"),
        (W + np.inf, DataError, "^sample_weight holds 7 values that are NaN, infinite"),
        (["a"] * N, DataError, "^sample_weight has dtype <U1; expected numbers"),
    ],
    ids=["short", "column", "negative", "nan", "infinite", "text"],
)
def test_bad_weights_are_refused(weight, error, message):
    model, loss = net(None, "reference"), fn.MSELoss()
    before = pickle.dumps(model.state_dict())
    trainer = fn.Trainer(model, loss)
    for call in (
        lambda: model.value_and_grad(loss, X, REALS, sample_weight=weight),
        lambda: trainer.fit(X, REALS, sample_weight=weight, verbose=0),
        lambda: trainer.evaluate(X, REALS, sample_weight=weight),
        lambda: loss.forward(REALS, REALS, weight),
    ):
        with pytest.raises(error, match=message):
            call()
    assert pickle.dumps(model.state_dict()) == before


def test_nothing_is_trained_with_none():
    model, loss = net(None, "reference"), fn.MSELoss(reduction="none")
    for call in (
        lambda: fn.Trainer(model, loss),
        lambda: model.value_and_grad(loss, X, REALS),
    ):
        with pytest.raises(HyperparameterError, match="expected a loss with reduction='mean'"):
            call()


def test_bad_gradients_of_losses_are_refused():
    loss = fn.L1Loss("none")
    loss.forward(REALS, REALS + 1)
    with pytest.raises(ShapeError, match=r"^d has shape \(3,\)"):
        loss.backward(np.ones(3))


def test_hyper_parameters_are_fixed():
    loss = fn.HuberLoss(2)
    with pytest.raises(AttributeError, match="delta cannot be assigned"):
        loss.delta = 3
    assert repr(loss) == "HuberLoss(delta=2.0)"
    assert repr(fn.CrossEntropyLoss(weight=[1, 2])) == "CrossEntropyLoss(weight=[1.0, 2.0])"
    copied = pickle.loads(pickle.dumps(loss))
    assert copied.plan_key() == loss.plan_key()
    assert copied.plan_key() != fn.HuberLoss(3).plan_key()


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("margin", [1.0, 0.2])
def test_one_vs_rest_is_a_hinge_loss_for_each_class(p, margin):
    """By scikit-learn's definition of the hinge of one machine, max(0, 1 − s·y), class after class."""
    z = np.random.default_rng(3).normal(size=(len(LABELS), len(V)))
    expected, slopes = np.zeros(len(z)), np.zeros_like(z)
    for j, weight in enumerate(np.ones(len(V))):
        s = np.where(j == LABELS, 1.0, -1.0)
        lack = np.maximum(0, margin - s * z[:, j])
        expected += weight * lack**p
        slopes[:, j] = -s * (lack > 0) * (1 if p == 1 else 2 * lack)
    loss = fn.OneVsRestHingeLoss(p, margin, reduction="none")
    np.testing.assert_allclose(loss.forward(z, LABELS), expected, rtol=1e-14)
    np.testing.assert_allclose(loss.backward(), slopes, rtol=1e-14)


@pytest.mark.parametrize("ignored", [1, -1, 0])
def test_probabilities_have_no_label_to_ignore(backend, ignored):
    loss = fn.CrossEntropyLoss(ignore_index=ignored)
    model = fn.Sequential(fn.Linear(5, K), backend=backend)
    for refuse in (lambda: loss.forward(REALS, ROWS), lambda: model.value_and_grad(loss, X, ROWS)):
        with pytest.raises(
            HyperparameterError, match=f"^ignore_index is {ignored} and y holds prob"
        ):
            refuse()
    assert fn.CrossEntropyLoss(ignore_index=-100).forward(REALS, ROWS) > 0


def test_logarithms_of_0_are_targets(backend):
    """A distribution without its last class, given as logarithms and as it is."""
    model = fn.Sequential(
        fn.Linear(5, K), fn.LogSoftmax(), backend=backend, dtype="float64", seed=0
    )
    t = ROWS.copy()
    t[:, -1] = 0
    with np.errstate(divide="ignore"):
        logs = np.log(t)
    of_logs, plain = fn.KLDivLoss(log_target=True), fn.KLDivLoss()
    value = model.value_and_grad(of_logs, X, logs)
    grads = {name: grad.copy() for name, grad in model.grads.items()}
    assert value == pytest.approx(model.value_and_grad(plain, X, t), rel=1e-12)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grad, grads[name], rtol=1e-9, atol=1e-12)
    history = fn.Trainer(model, of_logs, fn.SGD(0.1)).fit(X, logs, epochs=3)
    assert np.all(np.isfinite(history.history["loss"]))
    logs[2, 1] = np.inf
    with pytest.raises(DataError, match=r"^y holds 1 values that are NaN, infinite .* \(2, 1\)"):
        model.value_and_grad(of_logs, X, logs)
    with pytest.raises(DataError, match=r"^y holds 7 values that are NaN"):
        model.value_and_grad(fn.MSELoss(), X, np.where(t == 0, -np.inf, t))


@pytest.mark.parametrize("log_target", [False, True])
def test_the_slope_of_a_divergence_at_minus_infinity(log_target):
    loss = fn.KLDivLoss("sum", log_target)
    t = np.log([[0.25, 0.75]]) if log_target else np.array([[0.25, 0.75]])
    assert loss.forward(np.array([[-np.inf, -1.0]]), t) == np.inf
    np.testing.assert_allclose(loss.backward(), [[-0.25, -0.75]], rtol=1e-15)
