"""Random graphs against PyTorch's autograd, in float64."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import random_graphs

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore:::torch")

ROWS = 9
GRAPHS, GROUPS = 300, 6


def largest(arrays):
    return max(float(np.abs(a).max(initial=0)) for a in arrays)


@pytest.mark.parametrize("group", range(GROUPS))
def test_outputs_and_gradients(group):
    """With frozen parameters, whose gradients PyTorch does not compute either."""
    for seed in range(group, GRAPHS, GROUPS):
        tree = random_graphs.tree(seed)
        theirs = random_graphs.torch_of(tree, torch)
        model = random_graphs.fastnet_of(tree, dtype="float64", seed=seed)
        model.load_state_dict(theirs.state_dict())
        frozen = random_graphs.to_freeze(model, seed)
        if frozen:
            model.freeze(*frozen)
        for name, p in theirs.named_parameters():
            p.requires_grad_(name not in frozen)
        x = random_graphs.inputs(tree, ROWS, seed)
        dy = np.random.default_rng(seed).normal(size=(ROWS, 2))
        given = torch.tensor(x, requires_grad=True)
        output = theirs(given)
        output.backward(torch.tensor(dy))
        want = {n: p.grad.numpy() for n, p in theirs.named_parameters() if p.grad is not None}
        want |= {"x": given.grad.numpy(), "y": output.detach().numpy()}
        found = {"y": model.forward(x), "x": model.backward(dy), **model.grads}
        scale = largest(want.values())
        for name, value in found.items():
            expected = want.get(name, np.zeros_like(value))
            np.testing.assert_allclose(
                value, expected, rtol=1e-7, atol=1e-8 * scale, err_msg=f"{seed} {name}"
            )
        assert set(want) - {"x", "y"} <= set(model.grads)


def test_names_of_shared_parameters_are_theirs_too():
    """PyTorch's state dict repeats them, its named_parameters do not."""
    seen = 0
    for seed in range(60):
        tree = random_graphs.tree(seed)
        theirs, model = random_graphs.torch_of(tree, torch), random_graphs.fastnet_of(tree)
        assert set(model.named_parameters()) == {name for name, _ in theirs.named_parameters()}
        seen += len(theirs.state_dict()) > len(model.state_dict())
    assert seen > 10
