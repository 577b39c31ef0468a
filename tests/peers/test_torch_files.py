"""Files between fastnet and PyTorch, both ways, strictly by name and shape."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    from safetensors import torch as files

pytestmark = pytest.mark.filterwarnings("ignore:::torch")
X = np.random.default_rng(0).normal(size=(17, 6)).astype("float32")
nn = torch.nn
NETS = {
    "perceptron": (
        lambda: [fn.Linear(6, 9), fn.ReLU(), fn.Linear(9, 3, bias=False)],
        lambda: [nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3, bias=False)],
    ),
    "norms, slopes and a net within": (
        lambda: [
            fn.Linear(6, 8),
            fn.BatchNorm1d(8, affine=False),
            fn.Sequential(fn.PReLU(8), fn.Dropout(0.5), fn.Linear(8, 8), fn.BatchNorm1d(8)),
            fn.PReLU(),
            fn.Linear(8, 2),
            fn.LogSoftmax(),
        ],
        lambda: [
            nn.Linear(6, 8),
            nn.BatchNorm1d(8, affine=False),
            nn.Sequential(nn.PReLU(8), nn.Dropout(0.5), nn.Linear(8, 8), nn.BatchNorm1d(8)),
            nn.PReLU(),
            nn.Linear(8, 2),
            nn.LogSoftmax(dim=-1),
        ],
    ),
}
every = pytest.mark.parametrize("name", NETS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def pair(name, dtype):
    ours, theirs = NETS[name]
    net = nn.Sequential(*theirs()).to(getattr(torch, dtype))
    return fn.Sequential(*ours(), dtype=dtype, seed=1), net


def outputs(net, dtype):
    with torch.no_grad():
        return net.eval()(torch.from_numpy(X.astype(dtype))).numpy()


@every
@dtypes
def test_a_saved_model_is_a_state_dict_of_pytorch(name, dtype, tmp_path):
    model, net = pair(name, dtype)
    model.train().forward(X)  # moves running statistics
    model.save(tmp_path / "net.safetensors")
    net.load_state_dict(files.load_file(tmp_path / "net.safetensors"), strict=True)
    np.testing.assert_allclose(
        model.predict(X), outputs(net, dtype), rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6
    )


@every
@dtypes
def test_pytorchs_weights_load_into_a_model(name, dtype, tmp_path):
    model, net = pair(name, dtype)
    net.train()(torch.from_numpy(X.astype(dtype)))
    files.save_file(net.state_dict(), tmp_path / "net.safetensors")
    model.load_weights(tmp_path / "net.safetensors", strict=True)
    np.testing.assert_allclose(
        model.predict(X), outputs(net, dtype), rtol=1e-5 if dtype == "float32" else 1e-12, atol=1e-6
    )
    model.save(tmp_path / "again.safetensors")
    back = files.load_file(tmp_path / "again.safetensors")
    for key, value in net.state_dict().items():
        assert torch.equal(back[key], value) and back[key].dtype == value.dtype, key


def test_a_trainers_file_has_the_model_beside_the_training(tmp_path):
    model, net = pair("perceptron", "float32")
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
    trainer.fit(X, np.arange(17) % 3, verbose=0)
    trainer.save(tmp_path / "run.safetensors")
    found = net.load_state_dict(files.load_file(tmp_path / "run.safetensors"), strict=False)
    assert found.missing_keys == []
    assert all(key.startswith("trainer/") for key in found.unexpected_keys)
    np.testing.assert_allclose(model.predict(X), outputs(net, "float32"), rtol=1e-5, atol=1e-6)
