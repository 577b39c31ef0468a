"""Second-order full-batch methods: their products, least squares, evidence, saddles, and refusals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError, UsageError
from fastnet.examples import saddle
from fastnet.train import full_batch
from fastnet.train.full_batch import METHODS, TABLE
from fastnet.train.full_batch.dense import hessian
from fastnet.train.full_batch.krylov import lanczos
from fastnet.train.full_batch.residuals import Residuals

optimize = pytest.importorskip("scipy.optimize")


def data(rows=60, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 3))
    y = np.tanh(x @ rng.normal(size=(3, 2))) + 0.1 * rng.normal(size=(rows, 2))
    return x, y, rng.uniform(0.2, 2.0, size=rows)


def net(backend="auto", dtype="float64", seed=3, hidden=5):
    layers = fn.Linear(3, hidden), fn.Tanh(), fn.Linear(hidden, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=seed)


def parameters(model):
    storage = model.bind()
    return storage.flat("params")[storage.trainable_places()].astype(np.float64)


def objective_of(model, loss, x, y, *, sample_weight=None, **options):
    """The objective that fit_full_batch would minimise, at its start."""
    given = {
        "method": "L-BFGS-B",
        "max_iter": 1,
        "tol": 0.0,
        "weight_decay": 0.0,
        "decay_biases_and_norms": True,
        "batch_size": None,
        "respect_modes": False,
        "options": None,
        "callback": None,
        **options,
    }
    trainer = fn.Trainer(model, loss, seed=0)
    settings = full_batch.checked_settings(given)
    checked, _ = trainer._checked(x, y, sample_weight)
    made = full_batch.Objective(model, loss, checked, settings, 0, 0)
    made.start()
    return made


# Products.


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("batch_size", [None, 17])
@pytest.mark.parametrize(
    "loss", [fn.MSELoss(), fn.HalfMSELoss(), fn.MSELoss("sum"), fn.HalfMSELoss("sum")], ids=repr
)
def test_the_gauss_newton_matrix_is_that_of_the_jacobian(backend, loss, weighted, batch_size):
    x, y, weights = data()
    options = {"weight_decay": 0.1, "batch_size": batch_size}
    if weighted:
        options["sample_weight"] = weights
    objective = objective_of(net(backend), loss, x, y, **options)
    at = objective.accepted.x
    gram = Residuals(objective).gram(at)
    matrix = gram + 0.1 * np.eye(len(at))
    v = np.random.default_rng(1).normal(size=len(at))
    np.testing.assert_allclose(objective.linearize(at).gnvp(v), matrix @ v, rtol=1e-6, atol=1e-8)
    # The gradient of Σ f·e², from the same Jacobian: the direction J·v of the errors.
    h = 1e-6
    slope = (objective.evaluate(at + h * v).value - objective.evaluate(at - h * v).value) / (2 * h)
    assert slope == pytest.approx(float(objective.evaluate(at).gradient @ v), rel=1e-6)


def test_the_gauss_newton_matrix_of_a_classification():
    x, _, _ = data()
    labels = (x[:, 0] > 0).astype(int)
    model = net()
    objective = objective_of(model, fn.CrossEntropyLoss(), x, labels, weight_decay=0.2)
    at, n = objective.accepted.x, len(x)
    z = model.predict(x)
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    jacobian = np.empty((n, 2, len(at)))
    for of, first, count in objective.by_blocks(at, objective.row_gradients()):
        for j in range(2):
            dy = np.zeros((count, 2))
            dy[:, j] = 1
            jacobian[first : first + count, j] = of(dy).rows(0, count)
    inner = (np.einsum("ni,ij->nij", p, np.eye(2)) - np.einsum("ni,nj->nij", p, p)) / n
    matrix = np.einsum("nip,nij,njq->pq", jacobian, inner, jacobian) + 0.2 * np.eye(len(at))
    v = np.random.default_rng(1).normal(size=len(at))
    np.testing.assert_allclose(objective.linearize(at).gnvp(v), matrix @ v, rtol=1e-6, atol=1e-8)


def test_a_linearisation_is_kept_until_the_point_changes():
    x, y, _ = data()
    objective = objective_of(net(), fn.MSELoss(), x, y)
    at = objective.accepted.x
    kept = objective.linearize(at)
    assert objective.linearize(at.copy()) is kept
    assert objective.linearize(at + 1) is not kept
    objective.linearize(at)
    objective.set_decay(0.5)
    v = np.ones_like(at)
    np.testing.assert_allclose(
        objective.linearize(at).hvp(v), kept.hvp(v), rtol=1e-9
    )  # both have the new decay
    np.testing.assert_allclose(
        objective.evaluate(at).gradient, objective.accepted.gradient, rtol=1e-12
    )
    assert objective.evaluate(at).value == pytest.approx(objective.accepted.value, rel=1e-12)


def test_lanczos_spans_the_krylov_subspace():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 40))
    a, start = a + a.T, rng.normal(size=40)
    basis, projected = lanczos(lambda v: a @ v, start, 12)
    np.testing.assert_allclose(basis.T @ basis, np.eye(12), atol=1e-13)
    np.testing.assert_allclose(projected, basis.T @ a @ basis, atol=1e-11)
    power = a @ (a @ start)
    np.testing.assert_allclose(basis @ (basis.T @ power), power, rtol=1e-10)
    basis, projected = lanczos(lambda v: 3 * v, start, 12)  # an invariant subspace
    assert basis.shape == (40, 1) and projected == pytest.approx(3.0)


# Levenberg–Marquardt.


def teacher(rows=80):
    """Rows, noisy outputs of a net with two hidden units, weights, and a start near that net."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(rows, 3))
    inner, outer = rng.normal(size=(3, 2)), rng.normal(size=(2, 2))
    y = np.tanh(x @ inner) @ outer + 0.1 * rng.normal(size=(rows, 2))
    exact = np.concatenate([inner.ravel(), np.zeros(2), outer.ravel(), np.zeros(2)])
    return x, y, rng.uniform(0.2, 2.0, size=rows), exact + 0.3 * rng.normal(size=14)


def student(start, backend="auto", dtype="float64"):
    model = net(backend, dtype, hidden=2)
    model.bind().flat("params")[model.bind().trainable_places()] = start
    model.touch()
    return model


def least_squares(x, y, weights, start):
    """SciPy's optimum of the same net in plain NumPy, from the same start."""

    def errors(p):
        w1, b1, w2, b2 = np.split(p, [6, 8, 12])
        out = np.tanh(x @ w1.reshape(3, 2) + b1) @ w2.reshape(2, 2) + b2
        return (np.sqrt(weights)[:, None] * (out - y)).ravel()

    return optimize.least_squares(errors, start, xtol=1e-12, ftol=1e-14, gtol=1e-12, max_nfev=300)


@pytest.mark.parametrize("damping", ["marquardt", "levenberg"])
@pytest.mark.parametrize("weighted", [False, True])
def test_it_ends_in_the_optimum_of_least_squares(backend, damping, weighted):
    x, y, weights, start = teacher()
    model = student(start, backend)
    given = weights if weighted else np.ones(80)
    theirs = least_squares(x, y, given, start)
    history = fn.Trainer(model, fn.MSELoss(), seed=0).fit_full_batch(
        x,
        y,
        "levenberg-marquardt",
        max_iter=100,
        tol=1e-10,
        options={"damping": damping},
        sample_weight=weights if weighted else None,
    )
    assert history.result.success
    total = given.sum() * y.shape[1]
    assert history.result.fun == pytest.approx(2 * theirs.cost / total, rel=1e-9)
    np.testing.assert_allclose(parameters(model), theirs.x, rtol=1e-5, atol=1e-6)
    mu = [record["mu"] for record in history.records[1:]]
    assert min(mu) > 0 and "mu" not in history.records[0]


def test_float32_comes_near_the_optimum_of_least_squares():
    x, y, _, start = teacher()
    model = student(start, dtype="float32")
    theirs = least_squares(x, y, np.ones(80), start)
    fit = fn.Trainer(model, fn.MSELoss(), seed=0).fit_full_batch
    history = fit(x, y, "levenberg-marquardt", tol=1e-6)
    assert history.result.fun == pytest.approx(2 * theirs.cost / y.size, rel=1e-5)


@pytest.mark.parametrize("loss", [fn.MSELoss(), fn.HalfMSELoss("sum")], ids=repr)
@pytest.mark.parametrize("inner", ["Tanh", "LayerNorm"])  # rows together, and one by one
def test_blocks_change_no_iterate(loss, inner):
    x, y, weights = data()

    def fit(**options):
        middle = fn.Tanh() if inner == "Tanh" else fn.LayerNorm(5)
        model = fn.Sequential(fn.Linear(3, 5), middle, fn.Linear(5, 2), dtype="float64", seed=1)
        trainer = fn.Trainer(model, loss, seed=0)
        return trainer.fit_full_batch(
            x, y, "levenberg-marquardt", sample_weight=weights, weight_decay=0.01, **options
        )

    whole, parts = (fit(max_iter=6, batch_size=size).history["loss"] for size in (None, 17))
    np.testing.assert_allclose(parts, whole, rtol=1e-10)
    assert fit(max_iter=300, tol=1e-3).result.success


def test_dropout_keeps_its_masks_in_the_jacobian():
    x, y, _ = data()
    layers = fn.Linear(3, 8), fn.Tanh(), fn.Dropout(0.3), fn.Linear(8, 2)
    model = fn.Sequential(*layers, dtype="float64", seed=1)
    trainer = fn.Trainer(model, fn.MSELoss(), seed=2)
    history = trainer.fit_full_batch(
        x, y, "levenberg-marquardt", max_iter=300, tol=1e-7, batch_size=25, weight_decay=1e-3
    )
    assert history.result.success  # with other masks its steps would not lead there
    assert len(history) < 200


@pytest.mark.parametrize(
    ("loss", "y"),
    [
        (fn.CrossEntropyLoss(), "labels"),
        (fn.HuberLoss(), "numbers"),
        (fn.RBFLoss(), "numbers"),
        (fn.L1Loss(), "numbers"),
    ],
    ids=lambda v: type(v).__name__,
)
def test_other_losses_are_refused_by_name(loss, y):
    x, numbers, _ = data()
    model = net()
    before, trainer = parameters(model), fn.Trainer(model, loss)
    targets = numbers if y == "numbers" else (x[:, 0] > 0).astype(int)
    wanted = f"{type(loss).__name__} is none; take MSELoss or HalfMSELoss"
    with pytest.raises(HyperparameterError, match=wanted):
        trainer.fit_full_batch(x, targets, "levenberg-marquardt")
    np.testing.assert_array_equal(parameters(model), before)
    assert trainer.step == 0
    model.zero_grad()  # the lock is free


def test_batchnorm_is_refused_by_name_and_works_with_its_running_statistics():
    x, y, _ = data()
    layers = fn.Linear(3, 6), fn.BatchNorm1d(6), fn.Tanh(), fn.Linear(6, 2)
    model = fn.Sequential(*layers, dtype="float64", seed=1)
    fit = fn.Trainer(model, fn.MSELoss()).fit_full_batch
    with pytest.raises(UsageError, match=r"BatchNorm1d.*respect_modes=True"):
        fit(x, y, "levenberg-marquardt")
    model.eval()
    history = fit(x, y, "levenberg-marquardt", respect_modes=True, max_iter=300, weight_decay=1e-3)
    assert history.result.success


# Bayesian regularisation.


def evidence(a, t, decayed, iterations=500):
    """MacKay's fixed point for linear regression a·w = t, of which some weights are decayed."""
    n, free = len(t), int((~decayed).sum())
    ata, alpha, beta = a.T @ a, 1.0, 1.0
    for _ in range(iterations):
        hessian = beta * ata + alpha * np.diag(decayed)
        w = np.linalg.solve(hessian, beta * a.T @ t)
        inverse = np.linalg.inv(hessian)
        gamma = decayed.sum() - alpha * inverse.diagonal()[decayed].sum()
        alpha = gamma / (w[decayed] @ w[decayed])
        beta = (n - gamma - free) / ((a @ w - t) @ (a @ w - t))
    return w, gamma + free, alpha, beta


@pytest.mark.parametrize("all_decayed", [True, False])
@pytest.mark.parametrize("loss", [fn.MSELoss(), fn.HalfMSELoss("sum")], ids=repr)
def test_a_linear_model_ends_in_the_fixed_point_of_the_evidence(backend, all_decayed, loss):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(40, 12)) * np.geomspace(1, 0.03, 12)
    t = x @ rng.normal(size=12) + 0.5 + 0.3 * rng.normal(size=40)
    model = fn.Sequential(fn.Linear(12, 1), dtype="float64", backend=backend, seed=0)
    history = fn.Trainer(model, loss).fit_full_batch(
        x,
        t,
        "levenberg-marquardt",
        max_iter=500,
        tol=1e-8,
        decay_biases_and_norms=all_decayed,
        options={"bayesian": True},
    )
    a = np.column_stack([x, np.ones(40)])
    decayed = np.array([True] * 12 + [all_decayed])
    w, gamma, alpha, beta = evidence(a, t, decayed)
    assert history.result.success
    last = history.records[-1]
    assert 3 < gamma < 12
    assert last["effective_parameters"] == pytest.approx(gamma, rel=2e-3)
    # F = β·E_D + α·E_W with E_D = Σe², half of MacKay's βs.
    assert last["alpha"] == pytest.approx(alpha / 2, rel=5e-3)
    assert last["beta"] == pytest.approx(beta / 2, rel=5e-3)
    np.testing.assert_allclose(parameters(model), w, rtol=1e-2, atol=1e-3)


def test_it_keeps_a_large_net_from_following_the_noise():
    rng = np.random.default_rng(7)
    x = np.sort(rng.uniform(-1, 1, size=30))[:, None]
    grid = np.linspace(-1, 1, 200)[:, None]
    y = np.sin(3 * x) + 0.2 * rng.normal(size=(30, 1))

    def error(**options):
        layers = fn.Linear(1, 15), fn.Tanh(), fn.Linear(15, 1)
        model = fn.Sequential(*layers, dtype="float64", seed=0)
        history = fn.Trainer(model, fn.MSELoss()).fit_full_batch(
            x, y, "levenberg-marquardt", max_iter=300, options=options
        )
        return np.sqrt(np.mean((model.predict(grid) - np.sin(3 * grid)) ** 2)), history

    plain, _ = error()
    regularised, history = error(bayesian=True)
    assert regularised < 0.5 * plain and regularised < 0.12
    assert 2 < history.records[-1]["effective_parameters"] < 12  # of 46


def test_nothing_to_decay_is_refused():
    model = fn.Sequential(fn.Scale(3), dtype="float64", seed=0)
    x, _, _ = data()
    with pytest.raises(UsageError, match="no parameter is decayed"):
        fn.Trainer(model, fn.MSELoss()).fit_full_batch(
            x,
            x,
            "levenberg-marquardt",
            decay_biases_and_norms=False,
            options={"bayesian": True},
        )


# Saddles.


@pytest.mark.parametrize("options", [{}, {"dimension": 6}])
def test_saddle_free_newton_leaves_a_saddle_where_gradient_descent_needs_ten_times_as_long(options):
    begun = saddle.fit(saddle.OFFSET, "gradient-descent", max_iter=1)
    assert begun.records[0]["loss"] == pytest.approx(saddle.LOSS, rel=0.01)
    history = saddle.fit(
        saddle.OFFSET, "saddle-free-newton", tol=1e-9, max_iter=60, options=options
    )
    iterations = saddle.left(history)
    assert iterations <= 30 and history.records[-1]["loss"] < 1e-6 * saddle.LOSS
    assert history.records[1]["negative_eigenvalues"] > 0
    assert history.records[-1]["negative_eigenvalues"] == 0
    for rate in saddle.RATES:  # none of which is ten times as fast
        assert saddle.left(saddle.descent(rate, 10 * iterations)) is None


def test_its_step_divides_by_the_absolute_eigenvalues(backend):
    x, y, _ = data()
    model, points = net(backend), []
    objective = objective_of(net(), fn.MSELoss(), x, y)
    fn.Trainer(model, fn.MSELoss(), seed=0).fit_full_batch(
        x,
        y,
        "saddle-free-newton",
        max_iter=1,
        options={"damping": 0.1},
        callback=lambda record: points.append((parameters(model), record)),
    )
    (start, _), (end, record) = points
    values, vectors = np.linalg.eigh(hessian(objective, start))
    assert values[0] < -1e-3 * values[-1] and record["damping"] == 0.1
    divisor = np.abs(values) + 0.1 * np.abs(values).max()
    step = -vectors @ (vectors.T @ objective.evaluate(start).gradient / divisor)
    np.testing.assert_allclose(end - start, step, rtol=1e-5, atol=1e-8)
    assert record["negative_eigenvalues"] == (values < -1e-5 * values[-1]).sum()


def test_newton_converges_to_the_saddle():
    history = saddle.fit(saddle.OFFSET, "newton", tol=1e-9, max_iter=30)
    assert history.result.success and saddle.left(history) is None
    assert history.records[-1]["loss"] == pytest.approx(saddle.LOSS, rel=1e-9)
    assert history.records[-1]["negative_eigenvalues"] > 0


@pytest.mark.parametrize("options", [{}, {"dimension": 8}])
def test_on_the_saddle_itself_negative_curvature_leads_away(options):
    assert saddle.fit(0, "L-BFGS-B").result.nit == 0  # the gradient is zero
    history = saddle.fit(0, "saddle-free-newton", tol=1e-9, max_iter=60, options=options)
    assert saddle.left(history) <= 30 and history.result.success
    assert "no eigenvalue of the Hessian is negative" in history.result.message


def test_the_whole_hessian_of_a_large_net_is_refused():
    model = fn.Sequential(fn.Linear(70, 70), dtype="float64", seed=0)
    x = np.random.default_rng(0).normal(size=(5, 70))
    with pytest.raises(UsageError, match=r"4970 trainable parameters.*saddle-free-newton"):
        fn.Trainer(model, fn.MSELoss()).fit_full_batch(x, x, "newton")


# The others.


@pytest.mark.parametrize("beta", ["fletcher-reeves", "polak-ribiere+", "hestenes-stiefel"])
def test_steps_of_conjugate_gradients_meet_the_strong_wolfe_conditions(backend, beta):
    x, y, _ = data()
    model, points = net(backend), []
    options = {"beta": beta, "c1": 1e-3, "c2": 0.1}
    fn.Trainer(model, fn.MSELoss(), seed=0).fit_full_batch(
        x,
        y,
        "CG",
        max_iter=25,
        options=options,
        callback=lambda r: points.append(parameters(model)),
    )
    objective = objective_of(net(), fn.MSELoss(), x, y)
    gradient_steps = 0
    for a, b in pairwise([objective.evaluate(p) for p in points]):
        step = b.x - a.x
        slope, after = a.gradient @ step, b.gradient @ step
        assert slope < 0 and b.value <= a.value + 1e-3 * slope + 1e-15
        assert abs(after) <= -0.1 * slope * (1 + 1e-9)
        cosine = -slope / np.linalg.norm(step) / np.linalg.norm(a.gradient)
        gradient_steps += cosine > 1 - 1e-9
    assert len(points) == 26 and gradient_steps < 10


def test_each_beta_is_its_formula(backend):
    x, y, _ = data()
    formulas = {
        "fletcher-reeves": lambda g, h, p: (h @ h) / (g @ g),
        "hestenes-stiefel": lambda g, h, p: (h @ (h - g)) / (p @ (h - g)),
        "polak-ribiere+": lambda g, h, p: max(0.0, (h @ (h - g)) / (g @ g)),
    }
    objective = objective_of(net(), fn.MSELoss(), x, y)
    for beta, formula in formulas.items():
        model, points = net(backend), []
        fn.Trainer(model, fn.MSELoss(), seed=0).fit_full_batch(
            x,
            y,
            "CG",
            max_iter=3,
            options={"beta": beta},
            callback=lambda r, m=model, p=points: p.append(parameters(m)),
        )
        first, second, third = (objective.evaluate(p) for p in points[:3])
        p = -first.gradient
        expected = -second.gradient + formula(first.gradient, second.gradient, p) * p
        step = third.x - second.x
        cosine = step @ expected / np.linalg.norm(step) / np.linalg.norm(expected)
        assert cosine == pytest.approx(1, abs=1e-9)


def test_irprop_is_the_optimizer_of_that_name_on_all_rows(backend):
    x, y, _ = data()
    full, stepped = net(backend), net(backend)
    fn.Trainer(full, fn.MSELoss(), seed=0).fit_full_batch(
        x, y, "irprop-", max_iter=40, options={"step": 0.05, "least": 1e-6}
    )
    optimizer = fn.Rprop(lr=0.05)
    for _ in range(40):
        stepped.value_and_grad(fn.MSELoss(), x, y)
        optimizer.step(stepped)
    np.testing.assert_allclose(parameters(full), parameters(stepped), rtol=1e-9, atol=1e-12)


def test_a_least_step_above_the_greatest_is_refused():
    x, y, _ = data()
    with pytest.raises(
        HyperparameterError, match=r"options\['least'\] is 2 and options\['most'\] is 1"
    ):
        fn.Trainer(net(), fn.MSELoss()).fit_full_batch(
            x, y, "irprop-", options={"least": 2, "most": 1}
        )


@pytest.mark.parametrize("method", ["newton", "saddle-free-newton", "levenberg-marquardt"])
def test_a_quadratic_takes_a_step_or_two(backend, method):
    x, y, _ = data()
    model = fn.Sequential(fn.Linear(3, 2), dtype="float64", backend=backend, seed=1)
    history = fn.Trainer(model, fn.MSELoss()).fit_full_batch(
        x,
        y,
        method,
        tol=1e-7,
        options={}
        if method == "newton"
        else {{"saddle-free-newton": "damping", "levenberg-marquardt": "mu"}[method]: 1e-9},
    )
    ones = np.column_stack([x, np.ones(len(x))])
    best = np.linalg.lstsq(ones, y, rcond=None)[0]
    assert history.result.success and len(history) <= 3
    np.testing.assert_allclose(model.state_dict()["0.weight"].T, best[:3], atol=1e-6)


@pytest.mark.parametrize("method", ["hessian-free", "trust-ncg", "saddle-free-newton"])
def test_a_classification_ends_where_quasi_newton_does(backend, method):
    x, _, _ = data()
    labels = (x[:, 0] + 0.3 * x[:, 1] ** 2 > 0.2).astype(int)

    def fit(name):
        model = net(backend)
        return fn.Trainer(model, fn.CrossEntropyLoss(), seed=0).fit_full_batch(
            x, labels, name, max_iter=300, tol=1e-7, weight_decay=0.03
        )

    theirs, ours = fit("BFGS"), fit(method)
    assert ours.result.success
    assert ours.result.fun == pytest.approx(theirs.result.fun, rel=1e-7)


@pytest.mark.parametrize("method", METHODS)
def test_a_second_fit_goes_on_where_the_first_ended(method):
    x, y, _ = data()
    trainer = fn.Trainer(net(), fn.MSELoss(), seed=0)
    first = trainer.fit_full_batch(x, y, method, max_iter=3)
    second = trainer.fit_full_batch(x, y, method, max_iter=3)
    assert second.records[0]["iteration"] == 0
    assert second.records[0]["loss"] == pytest.approx(first.records[-1]["loss"], rel=1e-12)
    assert len(trainer.history) == 0


@pytest.mark.parametrize("method", METHODS)
def test_options_are_checked(method):
    x, y, _ = data()
    model = net()
    before, trainer = parameters(model), fn.Trainer(model, fn.MSELoss())
    known = ", ".join(TABLE[method].options)
    with pytest.raises(HyperparameterError, match="options has 'stepp'; method ") as caught:
        trainer.fit_full_batch(x, y, method, options={"stepp": 1})
    assert str(caught.value).endswith(f"has {known}")
    for name in TABLE[method].options:
        for bad in ("much", -1.0, np.nan):
            with pytest.raises(HyperparameterError, match=rf"options\['{name}'\] is "):
                trainer.fit_full_batch(x, y, method, options={name: bad})
    np.testing.assert_array_equal(parameters(model), before)
    assert trainer.step == 0
