"""The learned optimizer against the modules of PyTorch whose weights it takes."""

from __future__ import annotations

import numpy as np
import pytest
from prescribed import draw, set_gradients

import fastnet as fn

torch = pytest.importorskip("torch")


class Learned(torch.nn.Module):
    """As LearnedOptimizer describes it; the tensors of a batch of parameters stand beside one another."""

    def __init__(self, units, layers):
        super().__init__()
        self.lstm = torch.nn.LSTM(2, units, layers)
        self.output = torch.nn.Linear(units, 1)


@pytest.mark.parametrize(("units", "layers"), [(20, 2), (7, 1), (4, 3)])
def test_steps(backend, units, layers):
    torch.manual_seed(0)
    module = Learned(units, layers).double()
    weights = {name: w.numpy() for name, w in module.state_dict().items()}
    model = fn.Sequential(
        fn.Linear(3, 4), fn.Linear(4, 2), dtype="float64", backend=backend, seed=0
    )
    optimizer, w, state = fn.LearnedOptimizer(weights, 0.2), {}, {}
    for name, value in model.named_parameters().items():
        w[name], state[name] = torch.tensor(np.array(value)), None
    for given in draw(model, 20):
        set_gradients(model, given)
        optimizer.step(model)
        for name, g in given.items():
            g = torch.tensor(g).reshape(1, -1)
            size = g.abs()
            large = size >= np.exp(-10.0)
            x = torch.stack(
                [
                    torch.where(large, size.log() / 10, -1.0),
                    torch.where(large, g.sign(), np.exp(10.0) * g),
                ],
                dim=2,
            )
            with torch.no_grad():
                h, state[name] = module.lstm(x, state[name])
                w[name] += 0.2 * module.output(h).reshape(w[name].shape)
            got = model.named_parameters()[name]
            np.testing.assert_allclose(got, w[name], rtol=1e-11, atol=1e-12)
