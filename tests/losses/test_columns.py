"""Targets (n,) for a model of one output are (n, 1), in every loss."""

import copy

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(2)
X = RNG.standard_normal((10, 3))
Y = RNG.uniform(0.1, 0.9, 10)
LOSSES = [
    fn.MSELoss(),
    fn.HalfMSELoss(),
    fn.L1Loss(),
    fn.HuberLoss(),
    fn.SmoothL1Loss(),
    fn.LogCoshLoss(),
    fn.PinballLoss(0.2),
    fn.BCELoss(),
    fn.BCEWithLogitsLoss(pos_weight=2.0),
    fn.KLDivLoss("batchmean"),
    fn.PoissonNLLLoss(),
    fn.RBFLoss(),
    fn.GaussianNLLLoss(),
    fn.FunctionLoss(lambda y, t: (np.mean((y - t) ** 2), 2 * (y - t) / len(y))),
]


def net(loss, backend="c"):
    width = 2 if isinstance(loss, fn.GaussianNLLLoss) else 1
    last = fn.Sigmoid() if isinstance(loss, fn.BCELoss) else fn.Softplus()
    return fn.Sequential(fn.Linear(3, width), last, dtype="float64", backend=backend, seed=1)


def test_every_loss_of_numbers_is_here():
    kinds = {v for v in vars(fn.losses).values() if isinstance(v, type) and issubclass(v, fn.Loss)}
    labels = {fn.CrossEntropyLoss, fn.NLLLoss, fn.MultiMarginLoss, fn.OneVsRestHingeLoss}
    labels.add(fn.HierarchicalSoftmaxLoss)
    assert {type(loss) for loss in LOSSES} == kinds - labels - {fn.Loss, fn.EnsembleLoss}


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_vector_of_targets_is_one_column(loss):
    seen = []

    def metric(y, output):
        seen.append(y.shape)
        return 0.0

    ends = []
    for y in (Y, Y[:, None]):
        model = net(loss)
        before = model.value_and_grad(loss, X, y)
        trainer = fn.Trainer(model, loss, fn.SGD(0.1), {"seen": metric}, seed=1)
        record = trainer.fit(X, y, validation_data=(X, y), verbose=0).records[0]
        scores = record["loss"], record["val_loss"], trainer.evaluate(X, y)["loss"]
        alone = copy.copy(loss).forward(model.predict(X), y)
        ends.append([before, *scores, alone, *model.predict(X).ravel()])
        assert model.predict(X).shape == (10, 2 if isinstance(loss, fn.GaussianNLLLoss) else 1)
    np.testing.assert_array_equal(*ends)
    assert set(seen) == {(10, 1)}


def test_a_pandas_series_is_a_vector():
    pandas = pytest.importorskip("pandas")
    model = net(LOSSES[0])
    value = model.value_and_grad(fn.MSELoss(), pandas.DataFrame(X), pandas.Series(Y))
    assert value == model.value_and_grad(fn.MSELoss(), X, Y[:, None])


def test_a_vector_is_no_row_of_several_outputs():
    model = fn.Sequential(fn.Linear(3, 10), seed=1)
    with pytest.raises(
        fn.errors.ShapeError, match=r"^y has shape \(10,\); MSELoss takes .*\(n, 10\)$"
    ):
        model.value_and_grad(fn.MSELoss(), X, Y)
