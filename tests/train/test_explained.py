"""Where the loss of a step is not finite, the error says why, if that can be told."""

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import DivergenceError

X = np.ones((8, 2))


def identity(backend):
    """A model whose output is its input's first column."""
    model = fn.Sequential(fn.Linear(2, 1, bias=False), backend=backend)
    with model.edit() as p:
        p["0.weight"][...] = [[1.0, 0.0]]
    return model


def nan_of(y, t):
    return np.nan, np.zeros_like(y)


def mean_of(y, t):
    return np.mean(y - t), np.ones_like(y) / y.size


CASES = {
    "beyond a probability": (
        fn.BCELoss(),
        1.5,
        1.0,
        r"outputs go from 1\.5 to 1\.5; BCELoss takes .*\[0, 1\]",
    ),
    "below a rate": (
        fn.PoissonNLLLoss(log_input=False),
        -2.0,
        1.0,
        r"outputs go from -2 to -2; .*\[0, inf\]",
    ),
    "overflow": (
        fn.MSELoss(),
        1e30,
        0.0,
        r"outputs reach 1e\+30 and the targets 0, of which MSELoss overflows",
    ),
    "own NaN": (nan_of, 1.0, 1.0, "this is the function's own doing"),
    "own targets": (mean_of, 1.0, np.nan, "outputs are finite; the targets of this step hold nan"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_error_says_why(backend, case):
    loss, output, target, why = CASES[case]
    x, y = output * X, np.full((8, 1), target)
    model = identity(backend)
    with pytest.raises(DivergenceError, match=rf"^the loss of step 0 is (nan|inf); .*{why}"):
        fn.Trainer(model, loss).fit(x, y, verbose=0)
    with pytest.raises(DivergenceError, match=why):
        model.value_and_grad(loss, x, y)


def test_outputs_that_are_not_finite_speak_of_the_rate(backend):
    model = identity(backend)
    with model.edit() as p:
        p["0.weight"][...] = [[3e38, 3e38]]
    with pytest.raises(DivergenceError, match=r"not applied\. A smaller learning rate, or inputs"):
        model.value_and_grad(fn.MSELoss(), X, np.ones(8))


def test_ones_own_targets_may_be_nan(backend):
    """What the function makes of them is its own matter."""

    def known(y, t):
        e = np.where(np.isnan(t), 0, y - t)
        return np.sum(e * e) / len(y), 2 * e / len(y)

    y = np.where(np.arange(8) % 2, np.nan, 0.0)[:, None]
    trainer = fn.Trainer(identity(backend), known, fn.SGD(0.0))
    assert trainer.fit(X, y, verbose=0).records[0]["loss"] == pytest.approx(0.5)
    assert trainer.evaluate(X, y)["loss"] == pytest.approx(0.5)


def test_a_later_step_of_a_chunk_says_why_of_its_own_rows(backend):
    """The last of six steps is a chunk's second or later one."""
    x = np.full((6, 2), 0.5)
    x[-1] = 1.5
    trainer = fn.Trainer(identity(backend), fn.BCELoss(), fn.SGD(0.0))
    with pytest.raises(DivergenceError, match=r"loss of step 5 is nan; .*from 1\.5 to 1\.5; BCE"):
        trainer.fit(x, np.ones(6), batch_size=1, shuffle=False, verbose=0)
    assert trainer.step == 5
