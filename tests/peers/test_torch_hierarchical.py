"""Hierarchical softmax against PyTorch's autograd in float64, which differentiates the papers' formulas."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn
from fastnet.layers.class_tree import huffman, two_levels

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")
CLASSES, WIDTH = 30, 6


def two_level_loss(parents, h, w, b, y):
    """−Σ log p(group)·p(class | group), both softmaxes (Goodman)."""
    groups = int(parents.max()) - CLASSES
    total, top = 0.0, torch.log_softmax(h @ w[:groups].T + b[:groups], dim=1)
    first = groups
    for group in range(groups):
        members = np.flatnonzero(parents[:CLASSES] == CLASSES + group).tolist()
        assert len(members) > 2
        rows = slice(first, first + len(members))
        inner = torch.log_softmax(h @ w[rows].T + b[rows], dim=1)
        first += len(members)
        for row, label in enumerate(y.tolist()):
            if label in members:
                total = total - top[row, group] - inner[row, members.index(label)]
    return total / len(y)


def binary_loss(parents, h, w, b, y):
    """−Σ log σ(±(w·h + b)) over the inner nodes on the way (Morin and Bengio)."""
    order, total = [len(parents) - 1], 0.0
    for node in order:
        order += [child for child in np.flatnonzero(parents == node).tolist() if child >= CLASSES]
    for row, label in enumerate(y.tolist()):
        node = label
        while (above := int(parents[node])) >= 0:
            place = np.flatnonzero(parents == above).tolist().index(node)
            at = order.index(above)
            logit = h[row] @ w[at] + b[at]
            total = total - torch.nn.functional.logsigmoid(-logit if place else logit)
            node = above
    return total / len(y)


@pytest.mark.parametrize("kind", ["two levels", "huffman"])
def test_loss_and_gradients(backend, kind):
    random = np.random.default_rng(8)
    x, y = random.normal(size=(50, 4)), random.integers(0, CLASSES, 50)
    frequencies = random.integers(0, 9, CLASSES)
    binary = kind == "huffman"
    last = fn.HierarchicalSoftmax(WIDTH, CLASSES, frequencies, kind if binary else None)
    layers = fn.Linear(4, WIDTH), fn.Tanh(), last
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=5)
    p = {n: torch.tensor(v, requires_grad=True) for n, v in model.state_dict().items()}
    h = torch.tanh(torch.tensor(x) @ p["0.weight"].T + p["0.bias"])
    loss_of = binary_loss if binary else two_level_loss
    parents = huffman(frequencies) if binary else two_levels(CLASSES, frequencies.astype(float))
    loss = loss_of(parents, h, p["2.weight"], p["2.bias"], y)
    loss.backward()
    value = model.value_and_grad(fn.HierarchicalSoftmaxLoss(), x, y)
    assert value == pytest.approx(loss.item(), rel=1e-13)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grad, p[name].grad.numpy(), rtol=1e-10, atol=1e-15, err_msg=name)
