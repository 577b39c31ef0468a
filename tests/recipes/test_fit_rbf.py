"""fit_rbf: its phases, the closed form, and real data."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError

RNG = np.random.default_rng(2)
X = RNG.normal(size=(90, 3))
WORDS = np.array(["a", "b", "c"])[np.argmax(X, axis=1)]
Y = np.sin(X[:, :2])
QUIET = {"method": "sample", "verbose": 0, "seed": 4, "backend": "reference", "epochs": 3}


def test_two_phases_leave_the_centers_and_three_move_them():
    two = fn.recipes.fit_rbf(X, WORDS, 8, fn.CrossEntropyLoss(), phases=2, **QUIET)
    three = fn.recipes.fit_rbf(X, WORDS, 8, fn.CrossEntropyLoss(), **QUIET)
    placed = fn.RBF(3, 8).place_centers(X, "sample", seed=4)
    np.testing.assert_array_equal(two.model[0].centers, placed.centers)
    np.testing.assert_array_equal(two.model[0].widths, placed.widths)
    assert two.model[0].frozen and not three.model[0].frozen
    assert not np.array_equal(three.model[0].centers, placed.centers)
    assert not np.array_equal(three.model[0].widths, placed.widths)
    assert (two.epoch, three.epoch) == (3, 6)
    first = [record["loss"] for record in three.history.records[:3]]
    assert [record["loss"] for record in two.history.records] == first
    assert set(three.model.predict_classes(X)) <= {"a", "b", "c"}


@pytest.mark.parametrize("ridge", [0, 0.5])
def test_the_closed_form_solves_the_normal_equations(ridge):
    trainer = fn.recipes.fit_rbf(
        X, Y, 8, fn.MSELoss(), phases=2, ridge=ridge, dtype="float64", **QUIET
    )
    model = trainer.model
    bumps = fn.Sequential(model[0].__copy__(), dtype="float64", backend="reference").predict(X)
    penalty = ridge * np.diag([1.0] * 8 + [0.0])
    slope = bumps.T @ (bumps @ model[1].weight.T - Y) + penalty @ model[1].weight.T
    np.testing.assert_allclose(slope, 0, atol=1e-9)
    assert trainer.epoch == 0 and model[0].frozen


def test_the_closed_form_of_labels_knows_the_classes():
    trainer = fn.recipes.fit_rbf(X, WORDS, 30, fn.CrossEntropyLoss(), phases=2, ridge=1e-3, **QUIET)
    assert list(trainer.classes_) == ["a", "b", "c"]
    assert (trainer.model.predict_classes(X) == WORDS).mean() > 0.8
    more = fn.recipes.fit_rbf(X, WORDS, 30, fn.CrossEntropyLoss(), ridge=1e-3, **QUIET)
    assert more.epoch == 3 and list(more.classes_) == ["a", "b", "c"]


def test_one_column_of_targets():
    trainer = fn.recipes.fit_rbf(X, Y[:, 0], 8, fn.MSELoss(), ridge=1e-6, **QUIET)
    assert trainer.model.predict(X).shape == (90, 1)
    assert trainer.evaluate(X, Y[:, 0])["loss"] < Y[:, 0].var()


WRONG = {
    "phases": (
        {"phases": 1},
        HyperparameterError,
        r"^phases is 1; expected an integer in \[2, 3\]$",
    ),
    "a flag": ({"phases": True}, HyperparameterError, "^phases is True; expected"),
    "ridge": ({"ridge": -1}, HyperparameterError, r"^ridge is -1; expected a finite number in \[0"),
    "epochs": ({"epochs": 0}, HyperparameterError, "^epochs is 0; expected an integer"),
    "batches": ({"batch_size": 0}, HyperparameterError, "^batch_size is 0"),
    "n_centers": ({"n_centers": 0}, HyperparameterError, "^n_centers is 0"),
    "method": ({"method": "mean"}, HyperparameterError, "^method is 'mean'"),
    "one class": ({"y": np.zeros(90, int)}, DataError, "^y has 1 class; expected at least two$"),
    "no targets": ({"y": np.zeros((90, 2, 2))}, DataError, r"^y has shape \(90, 2, 2\); expected"),
    "rows": ({"X": np.full((90, 3), np.inf)}, DataError, "^X holds 270 values"),
    "few rows": ({"n_centers": 91}, DataError, "^X has 90 rows; expected at least n_centers = 91$"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_refused(case):
    given, kind, message = WRONG[case]
    good = {"X": X, "y": WORDS, "n_centers": 8, "loss": fn.CrossEntropyLoss(), **QUIET}
    refused(lambda: fn.recipes.fit_rbf(**{**good, **given}), kind, message)


def real(name):
    """Standardised inputs and labels, for training and for testing."""
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    x = (x - x.mean(axis=0)) / np.maximum(x.std(axis=0), 1e-9)
    order = np.random.default_rng(0).permutation(len(x))
    cut = len(x) * 2 // 3
    return x[order[:cut]], y[order[:cut]], x[order[cut:]], y[order[cut:]]


@pytest.mark.parametrize(
    ("name", "n_centers", "enough"), [("breast_cancer", 30, 0.93), ("digits", 100, 0.93)]
)
def test_on_real_data_three_phases_are_no_worse_than_two(name, n_centers, enough):
    x, y, held, wanted = real(name)
    right = {
        (phases, seed): np.mean(
            fn.recipes.fit_rbf(
                x,
                y,
                n_centers,
                fn.CrossEntropyLoss(),
                fn.Adam(0.01),
                phases=phases,
                seed=seed,
                verbose=0,
            ).model.predict_classes(held)
            == wanted
        )
        for phases in (2, 3)
        for seed in (0, 1, 2)
    }
    two, three = (np.mean([right[phases, seed] for seed in (0, 1, 2)]) for phases in (2, 3))
    assert three >= enough and three >= two - 0.005


@pytest.mark.parametrize(("name", "n_centers"), [("breast_cancer", 30), ("digits", 100)])
def test_on_real_data_it_is_as_good_as_the_same_net_in_pytorch(name, n_centers):
    """From the same centres, by ‖x‖² − 2x·μ + ‖μ‖² in PyTorch, with other orders of the rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
    x, y, held, wanted = real(name)
    ours, theirs = [], []
    for seed in (0, 1, 2):
        layer = fn.RBF(x.shape[1], n_centers).place_centers(x, seed=seed)
        model = fn.Sequential(layer, fn.Linear(n_centers + 1, y.max() + 1, bias=False), seed=seed)
        start = {n: torch.tensor(v, requires_grad=True) for n, v in model.state_dict().items()}
        trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(0.01), seed=seed)
        trainer.fit(x, y, epochs=30, verbose=0)
        ours.append(np.mean(model.predict_classes(held) == wanted))
        theirs.append(np.mean(in_pytorch(torch, start, x, y, held, seed) == wanted))
    assert np.mean(ours) >= np.mean(theirs) - 0.015 and min(ours) > 0.9


def in_pytorch(torch, start, x, y, held, seed):
    """The classes of held rows by a net that PyTorch has trained from these arrays."""
    centers, widths, weight = (start[n] for n in ("0.centers", "0.widths", "1.weight"))

    def net(rows):
        squares = (rows**2).sum(1, keepdim=True) - 2 * rows @ centers.T + (centers**2).sum(1)
        bumps = torch.exp(-squares / (2 * widths**2))
        return torch.cat([bumps, torch.ones(len(rows), 1)], 1) @ weight.T

    rule = torch.optim.Adam(start.values(), 0.01)
    rows, labels = torch.tensor(x, dtype=torch.float32), torch.tensor(y)
    random = np.random.default_rng(seed)
    for _ in range(30):
        for part in np.array_split(random.permutation(len(x)), -(-len(x) // 32)):
            rule.zero_grad()
            torch.nn.functional.cross_entropy(net(rows[part]), labels[part]).backward()
            rule.step()
    with torch.no_grad():
        return net(torch.tensor(held, dtype=torch.float32)).argmax(1).numpy()
