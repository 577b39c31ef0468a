"""Metrics by name: how they are given, what they refuse, and what they are told by a loss."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError
from fastnet.losses.named_metrics import KINDS
from fastnet.train import scores

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("f")
CODES = RNG.integers(0, 4, 60)
TRUTHS = RNG.integers(0, 2, 60)
REAL = X @ RNG.normal(size=(4, 1)).astype("f")


def trainer(loss, width=4, metrics=None, backend="reference", final=(), dtype="float32"):
    model = fn.Sequential(fn.Linear(4, width), *final, dtype=dtype, backend=backend, seed=1)
    return fn.Trainer(model, loss, fn.SGD(0.1), metrics, 2)


OF_CLASSES = ["accuracy", "balanced_accuracy", "f1", "auc", "log_loss"]
GIVEN = {  # what each loss has: outputs, targets, and its metrics by name
    "CrossEntropyLoss": (fn.CrossEntropyLoss(), 4, CODES, [*OF_CLASSES, fn.TopK(2)]),
    "soft targets": (fn.CrossEntropyLoss(), 4, np.eye(4)[CODES], [*OF_CLASSES, fn.TopK(2)]),
    "NLLLoss": (fn.NLLLoss(), 4, CODES, [*OF_CLASSES, fn.TopK(2)]),
    "MultiMarginLoss": (fn.MultiMarginLoss(), 4, CODES, [*OF_CLASSES[:3], fn.TopK(2)]),
    "BCEWithLogitsLoss": (fn.BCEWithLogitsLoss(), 1, TRUTHS, [*OF_CLASSES, "mae", "rmse", "r2"]),
    "several": (fn.BCEWithLogitsLoss(), 4, np.eye(4)[CODES], ["accuracy", "f1", "auc", "mae"]),
    "KLDivLoss": (fn.KLDivLoss(), 4, np.eye(4)[CODES], ["log_loss", "auc", fn.TopK(1)]),
    "MSELoss": (fn.MSELoss(), 1, REAL, ["mae", "rmse", "r2"]),
    "PoissonNLLLoss": (fn.PoissonNLLLoss(), 1, np.abs(REAL), ["mae", "rmse", "r2"]),
    "a function": (lambda y, t: (float(((y - t) ** 2).mean()), y - t), 1, REAL, ["mae", "r2"]),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_fit_records_them_and_evaluate_measures_the_same(case, backend):
    loss, width, y, metrics = GIVEN[case]
    final = [fn.LogSoftmax()] * (case in ("NLLLoss", "KLDivLoss"))
    made = trainer(loss, width, metrics, backend, final)
    names = [m if isinstance(m, str) else m.name for m in metrics]
    assert list(made.metrics) == names
    made.fit(X, y, 2, 16, validation_data=(X, y), verbose=0)
    record = made.history.records[-1]
    found = made.evaluate(X, y)
    assert {f"val_{n}": v for n, v in found.items()} == {
        k: v for k, v in record.items() if "val_" in k
    }
    assert np.isfinite([record[n] for n in names]).all()
    rest = fn.Trainer(made.model, loss, fn.SGD(0.0), metrics, 2)
    rest.fit(X, y, 1, 16, verbose=0)  # without a change, the epoch's own outputs are these
    np.testing.assert_allclose(
        [rest.history.records[0][n] for n in names], [found[n] for n in names], rtol=1e-6
    )


def test_names_stand_for_the_classes():
    assert KINDS.keys() == {
        "top_k",
        "balanced_accuracy",
        "f1",
        "auc",
        "log_loss",
        "mae",
        "rmse",
        "r2",
    }
    made = trainer(fn.CrossEntropyLoss(), 8, ["accuracy", *OF_CLASSES[1:], "top_k"])
    kinds = [type(metric) for metric in made.metrics.values()]
    assert kinds[1:] == [fn.BalancedAccuracy, fn.F1, fn.AUC, fn.LogLoss, fn.TopK]
    assert made.metrics["top_k"].k == 5 and repr(made.metrics["top_k"]) == "TopK()"


def test_a_dict_mixes_them_with_functions():
    own = {
        "area": "auc",
        "best": fn.TopK(1),
        "second": fn.TopK(2),
        "right": "accuracy",
        "largest": lambda y, output: output.max(),
    }
    found = trainer(fn.CrossEntropyLoss(), metrics=own).evaluate(X, CODES)
    assert list(found) == ["loss", *own]
    assert found["best"] == found["right"] < found["second"]
    given = (fn.TopK(2), "auc")  # a tuple is a list
    assert list(trainer(fn.CrossEntropyLoss(), metrics=given).metrics) == ["top_k", "auc"]
    assert trainer(fn.CrossEntropyLoss(), metrics=[]).metrics == {}


def test_what_is_assigned_is_as_for_the_constructor():
    made = trainer(fn.CrossEntropyLoss())
    made.metrics = ["auc", fn.TopK(2)]
    assert list(made.evaluate(X, CODES)) == ["loss", "auc", "top_k"]
    refused(lambda: setattr(made, "metrics", ["aucc"]), HyperparameterError, "did you mean 'auc'")
    made.metrics = None
    assert list(made.metrics) == ["accuracy"]


def test_many_nets_have_them():
    models = [trainer(fn.CrossEntropyLoss()).model for _ in range(2)]
    losses, seeds = fn.CrossEntropyLoss(), [1, 2]
    histories = fn.fit_many(
        models, X, CODES, losses=losses, seeds=seeds, metrics=["auc"], validation=(X, CODES)
    )
    for model, history in zip(models, histories, strict=True):
        found = fn.Trainer(model, losses, metrics=["auc"]).evaluate(X, CODES)["auc"]
        assert history.records[0]["val_auc"] == found


WRONG = {
    "no name": (["aucc"], r"^metrics has 'aucc'; did you mean 'auc'\?$"),
    "a name like no other": (["zzz"], "^metrics has 'zzz'; expected one of accuracy, top_k, "),
    "no name in a dict": ({"a": "zzz"}, r"^metrics\['a'\] has 'zzz'; expected one of accuracy"),
    "twice": (["auc", "auc"], "^metrics holds 'auc' twice; expected other names: metrics="),
    "two of a kind": ([fn.TopK(1), fn.TopK(2)], "^metrics holds 'top_k' twice"),
    "a function in a list": (
        [max],
        "^metrics holds <built-in function max>; expected names out of",
    ),
    "a class": ([fn.AUC], "^metrics holds the class AUC; expected names"),
    "one name": ("auc", "^metrics is 'auc'; expected names out of accuracy, top_k"),
    "a number": (3, "^metrics is 3; expected names"),
    "a reserved name": ({"loss": "auc"}, r"^metrics\['loss'\] is .*AUC.*under a name other than"),
    "the name of a validation": ({"val_auc": "auc"}, r"^metrics\['val_auc'\]"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_metric_is_refused(case):
    given, message = WRONG[case]
    refused(lambda: trainer(fn.CrossEntropyLoss(), metrics=given), HyperparameterError, message)


UNFIT = [  # a loss, and names that it has no use for
    (fn.MSELoss(), ["top_k", "balanced_accuracy", "f1", "auc", "log_loss"]),
    (fn.GaussianNLLLoss(), ["auc"]),
    (fn.PoissonNLLLoss(), ["auc", "f1"]),
    (lambda y, t: (0.0, y), ["top_k", "auc"]),
    (fn.CrossEntropyLoss(), ["mae", "rmse", "r2"]),
    (fn.NLLLoss(), ["mae"]),
    (fn.OneVsRestHingeLoss(), ["auc", "log_loss", "r2"]),
    (fn.BCEWithLogitsLoss(), ["top_k"]),
    (fn.KLDivLoss(log_target=True), ["log_loss"]),
]


@pytest.mark.parametrize(("loss", "names"), UNFIT)
def test_a_metric_that_does_not_suit_the_loss_is_refused_at_once(loss, names):
    for name in names:
        message = f"^metrics has '{name}', which takes .*; .*Loss has other outputs or targets$"
        refused(lambda name=name: trainer(loss, metrics=[name]), HyperparameterError, message)


SHAPES = [  # which the loss takes, and the metric not
    (fn.CrossEntropyLoss(), 4, CODES, fn.TopK(4), r"more than k = 4 classes; .* \(n, 4\)"),
    (fn.CrossEntropyLoss(), 4, CODES, "top_k", "more than k = 5 classes"),
    (fn.BCEWithLogitsLoss(), 4, np.eye(4)[CODES], "log_loss", r"outputs are \(n, 4\)"),
    (fn.BCEWithLogitsLoss(), 4, np.eye(4)[CODES], "balanced_accuracy", "one for each class; "),
    (fn.GaussianNLLLoss(), 2, np.abs(REAL), "mae", r"one shape.* \(n, 2\) and the .* \(n, 1\)$"),
    (lambda y, t: (0.0, y), 4, REAL, "mae", r"one shape"),
]


@pytest.mark.parametrize(("loss", "width", "y", "name", "message"), SHAPES)
def test_a_metric_that_cannot_score_the_outputs_is_refused_before_training(
    loss, width, y, name, message
):
    made = trainer(loss, width, [name], final=[fn.Softplus()] * (width == 2))
    before = made.model.state_dict()
    refused(lambda: made.fit(X, y, verbose=0), HyperparameterError, message)
    assert all(np.array_equal(v, before[n]) for n, v in made.model.state_dict().items())
    assert made.epoch == 0
    refused(lambda: made.evaluate(X, y), ShapeError, f"^{next(iter(made.metrics))} got targets")


def test_rows_that_the_loss_ignores_do_not_count(backend):
    y = CODES.copy()
    y[::3] = -100
    metrics = [*OF_CLASSES, fn.TopK(2)]
    for loss, labels, kept in [
        (fn.CrossEntropyLoss(), y, y >= 0),
        (fn.CrossEntropyLoss(weight=[1.0, 2.0, 0.0, 1.0]), y, (y >= 0) & (y != 2)),
        (fn.NLLLoss(ignore_index=3), CODES, CODES != 3),
    ]:
        final = [fn.LogSoftmax()] * isinstance(loss, fn.NLLLoss)
        made = trainer(loss, metrics=metrics, backend=backend, final=final)
        plain = fn.Trainer(made.model, type(loss)(), metrics=metrics)
        found, expected = made.evaluate(X, labels), plain.evaluate(X[kept], labels[kept])
        assert {n: found[n] for n in found if n != "loss"} == pytest.approx(
            {n: expected[n] for n in expected if n != "loss"}, nan_ok=True
        )
    found = trainer(fn.CrossEntropyLoss(), metrics=metrics).evaluate(X, np.full(60, -100))
    assert found.pop("accuracy") == found.pop("loss") == 0 and np.isnan([*found.values()]).all()


def test_sample_weights_do_not_count():
    made = trainer(fn.CrossEntropyLoss(), metrics=OF_CLASSES)
    w = RNG.uniform(0, 2, 60)
    one, other = made.evaluate(X, CODES), made.evaluate(X, CODES, sample_weight=w)
    assert one.pop("loss") != other.pop("loss") and one == other


def test_soft_targets_are_those_of_their_largest_share_but_for_the_log_loss():
    soft = RNG.dirichlet(np.ones(4), 60)
    made = trainer(fn.CrossEntropyLoss(), metrics=OF_CLASSES)
    found, hard = made.evaluate(X, soft), made.evaluate(X, soft.argmax(axis=1))
    for name in OF_CLASSES[:-1]:
        assert found[name] == hard[name]
    assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-6) != hard["log_loss"]
    truths = RNG.uniform(size=(60, 1))
    found = trainer(fn.BCEWithLogitsLoss(), 1, ["log_loss"]).evaluate(X, truths)
    assert found["log_loss"] == pytest.approx(found["loss"], rel=1e-6)


def test_real_metrics_compare_what_the_link_makes_of_outputs():
    made = trainer(fn.PoissonNLLLoss(), 1, ["mae"])
    y = np.abs(REAL).astype("d")
    expected = np.abs(np.exp(made.model.predict(X).astype("d")) - y).mean()
    assert made.evaluate(X, y)["mae"] == pytest.approx(expected, rel=1e-12)
    rates = trainer(fn.PoissonNLLLoss(log_input=False), 1, ["mae"], final=[fn.Softplus()])
    expected = np.abs(rates.model.predict(X).astype("d") - y).mean()
    assert rates.evaluate(X, y)["mae"] == pytest.approx(expected, rel=1e-12)
    truths = trainer(fn.BCEWithLogitsLoss(), 1, ["rmse"])
    p = truths.model.predict_proba(X)[:, 1:].astype("d")
    expected = np.sqrt(((p - TRUTHS[:, None]) ** 2).mean())
    assert truths.evaluate(X, TRUTHS)["rmse"] == pytest.approx(expected, rel=1e-6)


def test_a_single_row_has_no_r2():
    assert np.isnan(fn.R2()(np.ones((1, 1)), np.ones((1, 1))))
    assert fn.MAE()(np.zeros((1, 1)), np.ones((1, 1))) == 1


@pytest.mark.parametrize("kind", [fn.AUC, fn.F1, fn.LogLoss, fn.BalancedAccuracy, fn.MAE, fn.R2])
def test_alone_they_refuse_shapes_that_do_not_fit(kind):
    for y, output in [
        (np.zeros(3), np.zeros((4, 2))),
        (np.zeros((3, 2)), np.zeros((3, 1))),
        (np.zeros(3), np.float64(1)),
        (np.zeros((3, 1, 1)), np.zeros((3, 1))),
    ]:
        refused(
            lambda y=y, output=output: kind()(y, output), ShapeError, f"^{kind.name} got targets"
        )


def test_outputs_that_are_not_finite_give_a_number_or_none():
    y, output = np.arange(6) % 3, np.full((6, 3), np.nan)
    for metric in (fn.AUC(), fn.F1(), fn.LogLoss(), fn.BalancedAccuracy(), fn.TopK(1)):
        assert isinstance(metric(y, output), float)
    assert np.isnan(fn.AUC()(y, output)) and np.isnan(fn.MAE()(output, output))


def test_a_trainer_leaves_the_given_ones_alone():
    given = fn.AUC()
    one = trainer(fn.CrossEntropyLoss(), metrics=[given])
    two = trainer(fn.BCEWithLogitsLoss(), 1, [given])
    assert one.metrics["auc"] is not given is not two.metrics["auc"]
    p = one.model.predict_proba(X)
    assert given(CODES, p) == pytest.approx(one.evaluate(X, CODES)["auc"], rel=1e-6)
    assert two.evaluate(X, TRUTHS)["auc"] == pytest.approx(
        given(TRUTHS, two.model.predict_proba(X)), rel=1e-6
    )


def test_copies_and_files_keep_them(tmp_path):
    metrics = {
        "auc": "auc",
        "second": fn.TopK(2),
        "right": "accuracy",
        "own": lambda y, output: 1.0,
    }
    made = trainer(fn.CrossEntropyLoss(), metrics=metrics)
    made.metrics.pop("own")
    expected = made.evaluate(X, CODES)
    assert copy.copy(made).evaluate(X, CODES) == expected
    assert pickle.loads(pickle.dumps(made)).evaluate(X, CODES) == expected
    made = trainer(fn.CrossEntropyLoss(), metrics=metrics)
    made.save(tmp_path / "run.safetensors")
    with pytest.raises(HyperparameterError, match="metrics lacks 'own': a file keeps the names"):
        fn.Trainer.load(tmp_path / "run.safetensors")
    found = fn.Trainer.load(tmp_path / "run.safetensors", metrics={"own": metrics["own"]})
    found.model.to("reference")
    assert repr(found.metrics["second"]) == "TopK(k=2)"
    assert found.evaluate(X, CODES) == {**expected, "own": 1.0}


@pytest.mark.parametrize(
    ("name", "mode"), [("auc", "max"), ("log_loss", "min"), ("rmse", "min"), ("r2", "max")]
)
def test_callbacks_know_which_way_is_better(name, mode):
    assert fn.EarlyStopping(f"val_{name}").mode == mode
    with pytest.raises(HyperparameterError, match="mode is 'auto' with monitor='val_own'"):
        fn.EarlyStopping("val_own")


def test_large_epochs_are_measured_in_parts(monkeypatch, backend):
    monkeypatch.setattr(scores, "BLOCK_BYTES", 20 * 4 * 4)
    made = trainer(fn.CrossEntropyLoss(), metrics=["auc", "f1"], backend=backend)
    made.optimizer.lr = 0.0
    made.fit(X, CODES, 1, 10, shuffle=False, verbose=0)
    parts = [made.evaluate(X[i : i + 20], CODES[i : i + 20]) for i in (0, 20, 40)]
    for name in ("auc", "f1"):
        mean = np.mean([part[name] for part in parts])
        assert made.history.records[0][name] == pytest.approx(mean, rel=1e-6)
