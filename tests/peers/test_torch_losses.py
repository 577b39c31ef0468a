"""Every loss that PyTorch has, with its options and reductions: values and gradients."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from loss_kinks import CLASSES, ELEMENTS, GAUSSIANS

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

nn = torch.nn
RANDOM = np.random.default_rng(0)
N, K = 9, 4
Z = RANDOM.normal(size=(N, K)) * 3
T = RANDOM.normal(size=(N, K)) * 2
T[0] = Z[0]  # kinks
Z[1, :2], T[1, :2] = (2.0, -1.0), (1.0, 0.0)
P, Q = (1 / (1 + np.exp(-RANDOM.normal(size=(N, K)))) for _ in range(2))
P[0, :2], Q[0] = (0.0, 1.0), (0.0, 0.0, 1.0, 1.0)  # where logarithms end
ROWS = Q / Q.sum(axis=1, keepdims=True)
LABELS = np.arange(N) % K
COUNTS = np.floor(np.abs(T) * 2)
LOGS = Z - np.log(np.exp(Z).sum(axis=1, keepdims=True))
V = np.array([0.3, 2.0, 0.0, 1.5])

# fastnet's, PyTorch's, the options of both (arrays become tensors), output, target
CASES = [
    *(
        (fn.CrossEntropyLoss, nn.CrossEntropyLoss, options, Z, LABELS)
        for options in (
            {},
            {"weight": V},
            {"ignore_index": 2},
            {"label_smoothing": 0.2},
            {"label_smoothing": 1.0},
            {"weight": V, "ignore_index": 0, "label_smoothing": 0.3},
        )
    ),
    *(
        (fn.CrossEntropyLoss, nn.CrossEntropyLoss, options, Z, ROWS)
        for options in ({}, {"weight": V}, {"label_smoothing": 0.2, "weight": V})
    ),
    *(
        (fn.NLLLoss, nn.NLLLoss, options, LOGS, LABELS)
        for options in ({}, {"weight": V}, {"ignore_index": 1}, {"weight": V, "ignore_index": 1})
    ),
    *(
        (fn.MultiMarginLoss, nn.MultiMarginLoss, {"p": p, "margin": margin, **weight}, Z, LABELS)
        for p in (1, 2)
        for margin in (1.0, 0.3, 5.0)
        for weight in ({}, {"weight": V})
    ),
    (fn.MSELoss, nn.MSELoss, {}, Z, T),
    (fn.L1Loss, nn.L1Loss, {}, Z, T),
    *((fn.HuberLoss, nn.HuberLoss, {"delta": d}, Z, T) for d in (0.3, 1.0, 5.0)),
    *((fn.SmoothL1Loss, nn.SmoothL1Loss, {"beta": b}, Z, T) for b in (0.0, 0.3, 1.0, 5.0)),
    (fn.BCELoss, nn.BCELoss, {}, P, Q),
    (fn.BCEWithLogitsLoss, nn.BCEWithLogitsLoss, {}, Z * 20, Q),
    (fn.BCEWithLogitsLoss, nn.BCEWithLogitsLoss, {"pos_weight": V}, Z * 20, Q),
    (fn.KLDivLoss, nn.KLDivLoss, {}, LOGS, ROWS),
    (fn.KLDivLoss, nn.KLDivLoss, {"log_target": True}, LOGS, np.log(ROWS + 0.01)),
    *((fn.PoissonNLLLoss, nn.PoissonNLLLoss, {"full": full}, Z, COUNTS) for full in (False, True)),
    *(
        (
            fn.PoissonNLLLoss,
            nn.PoissonNLLLoss,
            {"log_input": False, "full": full, "eps": eps},
            np.exp(Z),
            COUNTS,
        )
        for full in (False, True)
        for eps in (1e-8, 0.1)
    ),
]
IDS = [f"{mine.__name__}-{number}" for number, (mine, *_) in enumerate(CASES)]


@pytest.mark.parametrize(("mine", "theirs", "options", "output", "target"), CASES, ids=IDS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "batchmean"])
@pytest.mark.parametrize(("dtype", "tol"), [("float64", 1e-12), ("float32", 3e-6)])
def test_loss(backend, dtype, tol, reduction, mine, theirs, options, output, target):
    if reduction not in mine.reductions:
        pytest.skip("no such reduction")
    tensors = {k: torch.tensor(v.astype(dtype)) for k, v in options.items() if hasattr(v, "dtype")}
    peer = theirs(**{**options, **tensors}, reduction=reduction)
    y, t = output.astype(dtype), target
    t = t.astype(dtype) if t.dtype.kind == "f" else t
    ty = torch.tensor(y, requires_grad=True)
    value = peer(ty, torch.tensor(t))
    value.sum().backward()
    value, grad = value.detach().numpy(), ty.grad.numpy()
    loss = mine(**options, reduction=reduction)
    scale = max(1.0, float(np.abs(value).max()))
    np.testing.assert_allclose(loss.forward(y, t), value, rtol=tol, atol=tol * scale)
    scale = float(np.abs(grad).max())
    np.testing.assert_allclose(loss.backward(), grad, rtol=tol, atol=tol * scale)
    if reduction == "none":
        return
    model = fn.Sequential(fn.Linear(K, K, bias=False), dtype=dtype, backend=backend)
    with model.edit() as values:
        values["0.weight"][...] = np.eye(K)
    got = model.value_and_grad(loss, y, t)
    np.testing.assert_allclose(got, value, rtol=tol, atol=tol * max(1.0, abs(float(value))))
    want = grad.T.astype("float64") @ y
    np.testing.assert_allclose(
        model.grads["0.weight"], want, rtol=tol, atol=9 * tol * max(scale, np.abs(want).max())
    )


def test_the_defaults_are_pytorchs():
    for mine, theirs in {(mine, theirs) for mine, theirs, *_ in CASES}:
        got, want = mine(), theirs()
        for name in got._config:
            assert getattr(got, name) == getattr(want, name), (mine, name)


def check_kink(kind, options, t, loss, outputs, slopes):
    """PyTorch's loss of single outputs, and its gradients, are those of the table."""
    options = {k: torch.tensor(v) if k == "pos_weight" else v for k, v in options.items()}
    given = [torch.tensor(y, dtype=torch.float64, requires_grad=True) for y in outputs]
    target = torch.tensor(t, dtype=torch.float64 if isinstance(t[0], float) else torch.int64)
    theirs = getattr(nn, kind.__name__)(**options, reduction="sum")
    value = theirs(given[0], target, *given[1:])
    value.backward()
    assert value.item() == pytest.approx(loss, rel=1e-14, abs=0)
    for y, slope in zip(given, slopes, strict=True):
        np.testing.assert_allclose(y.grad, slope, rtol=1e-14)


THEIRS = [row for row in ELEMENTS if hasattr(nn, row[0].__name__)]
LABELLED = [row for row in CLASSES if hasattr(nn, row[0].__name__)]


@pytest.mark.parametrize(("kind", "options", "y", "t", "loss", "slope"), THEIRS)
def test_kinks(kind, options, y, t, loss, slope):
    check_kink(kind, options, [t], loss, [[y]], [[slope]])


@pytest.mark.parametrize(("kind", "options", "a", "b", "loss", "at_label", "elsewhere"), LABELLED)
@pytest.mark.parametrize("columns", [1, 5])
def test_kinks_of_labels(columns, kind, options, a, b, loss, at_label, elsewhere):
    wanted = [at_label(columns)] + [elsewhere(columns) for _ in range(columns - 1)]
    outputs = [[a] + [b] * (columns - 1)]
    check_kink(kind, options, [0], loss(columns), [outputs], [[wanted]])


@pytest.mark.parametrize(
    ("options", "mean", "variance", "t", "loss", "dmean", "dvar"),
    [row for row in GAUSSIANS if row[2] >= 0],
)
def test_kinks_of_gaussians(options, mean, variance, t, loss, dmean, dvar):
    check_kink(fn.GaussianNLLLoss, options, [t], loss, [[mean], [variance]], [[dmean], [dvar]])
