"""realmlp: its layers, groups of parameters and schedules, and that it learns."""

from __future__ import annotations

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError

RNG = np.random.default_rng(7)
S = fn.schedules
realmlp = fn.recipes.realmlp


def kinds(model):
    return [type(layer).__name__ for layer in model]


def groups_of(recipe):
    """The learning rate and the weight decay of each parameter at a step, by name."""
    model, _, optimizer = recipe
    state = model.optimizer_state(optimizer)
    found = {}
    for name, group in zip(model.named_parameters(), state.group_of, strict=True):
        one = state.settings[group]
        decay = one.weight_decay
        found[name] = one.lr(20), decay(20) if isinstance(decay, S.Schedule) else decay
    return found


def test_the_small_net():
    recipe = realmlp(5, 3, total_steps=100, n_onehot=2, seed=1)
    model, loss, optimizer = recipe
    hidden = ["NTKLinear", "SELU"] * 3
    assert kinds(model) == ["Scale", *hidden, "NTKLinear"]
    assert [layer.out_features for layer in model if hasattr(layer, "out_features")] == [
        *(256, 256, 256),
        3,
    ]
    assert (model.in_width, loss.label_smoothing) == (7, 0.1)
    assert type(optimizer) is fn.Adam and optimizer.betas == (0.9, 0.95)
    assert optimizer.lr == S.CosLogLR(0.04, 100)
    assert not model[7].weight.any() and not model[7].bias.any()
    for value in (model[1].weight, model[1].bias):
        assert value.std() == pytest.approx(1, rel=0.1)
    rate = optimizer.lr(20)
    for name, (lr, decay) in groups_of(recipe).items():
        factor = 6 if name == "0.weight" else 0.1 if name.endswith("bias") else 1
        assert lr == pytest.approx(factor * rate) and decay == 0, name
    of_numbers = realmlp(5, 2, task="regression", total_steps=100)
    assert of_numbers.optimizer.lr == S.CosLogLR(0.07, 100) and kinds(of_numbers.model)[2] == "Mish"
    assert type(of_numbers.loss) is fn.MSELoss


def test_the_full_net():
    X = np.concatenate([RNG.normal(size=(90, 5)), RNG.integers(0, 2, (90, 2))], axis=1)
    X = np.concatenate([X, RNG.integers(0, 11, (90, 1))], axis=1)
    more = {"preset": "full", "total_steps": 100, "n_onehot": 2, "categories": [11]}
    recipe = realmlp(5, 3, X=X, seed=1, **more)
    model, _, optimizer = recipe
    hidden = ["NTKLinear", "ParametricActivation", "Dropout"] * 3
    assert kinds(model) == ["Embedding", "PBLD", "Scale", *hidden, "NTKLinear"]
    assert model[2].num_features == 20 + 2 + 8 and model[0].weight_0.shape == (12, 8)
    assert type(optimizer) is fn.AdamW and optimizer.weight_decay == S.FlatCosLR(0.02, 100)
    assert model[5].p == S.FlatCosLR(0.15, 100)
    assert model.predict(X).std(axis=0) == pytest.approx(1, rel=1e-3)  # also of the last layer
    rate = optimizer.lr(20)
    for name, (lr, decay) in groups_of(recipe).items():
        kind = type(model[int(name.split(".")[0])]).__name__
        factor = {"PBLD": 0.1, "Scale": 6, "ParametricActivation": 0.1}.get(kind, 1)
        if kind == "NTKLinear" and name.endswith("bias"):
            assert (lr, decay) == (pytest.approx(0.1 * rate), 0)
        else:
            assert (lr, decay) == (pytest.approx(factor * rate), pytest.approx(0.02 * factor)), name
    without = realmlp(5, 3, preset="full", total_steps=9, dropout=0, weight_decay=0)
    assert "Dropout" not in kinds(without.model) and type(without.optimizer) is fn.Adam
    assert realmlp(5, 1, task="regression", **more).optimizer.lr == S.CosLogLR(0.2, 100)
    assert kinds(realmlp(0, 2, preset="full", total_steps=9, n_onehot=3).model)[0] == "Scale"


def test_what_is_chosen():
    recipe = realmlp(
        3,
        2,
        total_steps=10,
        hidden=[7],
        lr=0.5,
        dropout=0.25,
        weight_decay=0.1,
        label_smoothing=0,
        dtype="float64",
        backend="reference",
        seed=4,
    )
    assert kinds(recipe.model) == ["Scale", "NTKLinear", "SELU", "Dropout", "NTKLinear"]
    assert (recipe.model.dtype, recipe.model.backend, recipe.model.seed) == (
        "float64",
        "reference",
        4,
    )
    assert recipe.optimizer.lr == S.CosLogLR(0.5, 10) and recipe.loss.label_smoothing == 0
    assert recipe.optimizer.weight_decay == S.FlatCosLR(0.1, 10)
    assert kinds(realmlp(3, 2, total_steps=1, hidden=()).model) == ["Scale", "NTKLinear"]


@pytest.mark.parametrize("preset", ["small", "full"])
def test_it_learns_classes_and_numbers(preset):
    """Of numbers, of one-hot columns, and with "full" of codes, one of them unknown in the training."""
    n = 600
    numbers, codes = RNG.normal(size=(n, 3)), RNG.integers(0, 12, n)
    binary = RNG.integers(0, 2, n)
    score = np.sin(2 * numbers[:, 0]) + 0.5 * numbers[:, 1] * (2 * binary - 1) + 0.2 * (codes % 3)
    columns = [fn.preprocess.RobustScaler().fit_transform(numbers), binary[:, None]]
    more = {"n_onehot": 1, "preset": preset}
    if preset == "full":
        columns, more = [*columns, codes[:, None]], {**more, "categories": [12]}
    else:
        columns, more["n_onehot"] = [*columns, np.eye(12)[codes]], 13
    X = np.concatenate(columns, axis=1)
    train, test = slice(0, 400), slice(400, n)
    steps = 60 * (400 // 64)
    fit = {"epochs": 60, "batch_size": 64, "drop_last": True, "verbose": 0}
    for task in ("classification", "regression"):
        y = (score > 0).astype(int) if task[0] == "c" else (score - score.mean()) / score.std()
        recipe = realmlp(
            3,
            2 if task[0] == "c" else 1,
            task=task,
            total_steps=steps,
            seed=1,
            hidden=(64, 64),
            **more,
            **({"X": X[train]} if preset == "full" else {}),
        )
        trainer = fn.Trainer(*recipe, seed=1)
        trainer.fit(X[train], y[train], **fit)
        if task[0] == "c":
            assert trainer.evaluate(X[test], y[test])["accuracy"] > 0.88
        else:
            assert trainer.evaluate(X[test], y[test])["loss"] < 0.15
        if preset == "full":
            unknown = X[test].copy()
            unknown[:, -1] = -1
            assert np.isfinite(trainer.model.predict(unknown)).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"n_numeric": 0}, "n_numeric, n_onehot and categories are 0, 0 and"),
        ({"n_outputs": 1}, "n_outputs is 1; expected an integer ≥ 2"),
        ({"total_steps": 0}, "total_steps is 0"),
        ({"task": "ranking"}, "task is 'ranking'; expected"),
        ({"preset": "tiny"}, "preset is 'tiny'; expected"),
        ({"categories": [3]}, 'categories is given with preset="small"'),
        ({"X": np.ones((2, 3))}, 'X is given with preset="small"'),
        ({"preset": "full", "categories": [0]}, r"categories is 0; expected an integer in \[1, "),
        ({"hidden": 5}, "hidden is 5; expected integers ≥ 1 in a sequence"),
        ({"lr": -1}, "lr is -1"),
        ({"dropout": 1.5}, "dropout is 1.5"),
        ({"weight_decay": -1}, "weight_decay is -1"),
        ({"label_smoothing": 2}, "label_smoothing is 2"),
    ],
)
def test_bad_arguments(given, message):
    good = {"n_numeric": 3, "n_outputs": 2, "total_steps": 9}
    refused(lambda: realmlp(**{**good, **given}), HyperparameterError, f"^{message}")
