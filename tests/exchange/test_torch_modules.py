"""Models of PyTorch's Sequential, and back."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

import fastnet as fn
from fastnet.interop.torch_table import ARGUMENTS

torch = pytest.importorskip("torch")
nn = torch.nn
RANDOM = np.random.default_rng(3)
X = RANDOM.normal(size=(7, 6)) * 2

MODULES = {
    "AlphaDropout": lambda: nn.AlphaDropout(0.3),
    "BatchNorm1d": lambda: nn.BatchNorm1d(6, eps=0.01, momentum=None),
    "Dropout": lambda: nn.Dropout(0.2),
    "ELU": lambda: nn.ELU(0.7),
    "GELU": lambda: nn.GELU("tanh"),
    "Hardtanh": lambda: nn.Hardtanh(-0.5, 2.0),
    "LayerNorm": lambda: nn.LayerNorm(6, eps=0.1, bias=False),
    "LeakyReLU": lambda: nn.LeakyReLU(0.3),
    "Linear": lambda: nn.Linear(6, 3, bias=False),
    "LogSoftmax": lambda: nn.LogSoftmax(1),
    "PReLU": lambda: nn.PReLU(6),
    "RMSNorm": lambda: nn.RMSNorm(6, eps=0.1),
    "Softmax": lambda: nn.Softmax(-1),
    "Softplus": lambda: nn.Softplus(2.0, 3.0),
}
MORE = {
    "batchnorm without weights": lambda: nn.BatchNorm1d(6, affine=False),
    "batchnorm without statistics": lambda: nn.BatchNorm1d(6, track_running_stats=False),
    "layernorm alone": lambda: nn.LayerNorm(6, elementwise_affine=False),
    "rmsnorm alone": lambda: nn.RMSNorm([6], elementwise_affine=False),
    "a bias": lambda: nn.Linear(6, 3),
}


def module_of(name):
    make = MODULES.get(name) or MORE.get(name) or getattr(nn, name)
    torch.manual_seed(1)
    module = make()
    with torch.no_grad():
        for i, value in enumerate((*module.parameters(), *module.buffers())):
            if value.is_floating_point():
                value.copy_(torch.rand(value.shape) + 0.3 + i)
    return module


def run(module, x):
    return module(torch.from_numpy(x)).detach().numpy()


def same_state(model, module):
    """Equal names, shapes and bits."""
    theirs = {name: value.numpy() for name, value in module.state_dict().items()}
    ours = model.state_dict()
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", [*sorted(ARGUMENTS), *MORE])
def test_a_module_and_back(name, dtype):
    first = nn.Linear(6, 6)  # tells the dtype
    module = nn.Sequential(first, module_of(name)).to(getattr(torch, dtype)).eval()
    x = X.astype(dtype)
    model = fn.from_torch(module)
    assert model.dtype == dtype and not model.training
    tolerance = {"rtol": 0, "atol": 1e-5 if dtype == "float32" else 1e-13}
    np.testing.assert_allclose(model.predict(x), run(module, x), **tolerance)
    back = model.to_torch()
    np.testing.assert_array_equal(run(back, x), run(module, x))
    assert str(back) == str(module)
    same_state(model, module)
    same_state(model, back)


def test_the_table_has_all_arguments_that_matter():
    """What else a module's constructor takes has no meaning here, or is refused."""
    ignored = {"inplace", "device", "dtype", "init", "size_average", "start_dim", "end_dim"}
    for name, arguments in ARGUMENTS.items():
        theirs = {*inspect.signature(getattr(nn, name)).parameters} - {"args", "kwargs"}
        ours = {*inspect.signature(getattr(fn, name)).parameters}
        assert {*arguments} <= theirs & ours
        left = theirs - {*arguments} - ignored
        assert left <= {"dim", "bias", "min_value", "max_value"}, (name, left)


def whole():
    shared = nn.Linear(8, 8)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(6, 8),
        nn.Sequential(nn.BatchNorm1d(8), nn.Sequential(nn.ReLU(), nn.Dropout(0.1))),
        *(shared, nn.Tanh(), shared, nn.Linear(8, 4)),
    )
    net(torch.randn(9, 6))
    return net


def test_a_whole_net():
    net = whole().eval()
    model = fn.from_torch(net)
    x = X.astype("f")
    np.testing.assert_allclose(model.predict(x), run(net, x), rtol=0, atol=1e-6)
    assert model[2] is model[4]
    back = model.to_torch()
    assert back[2] is back[4]
    assert list(back.state_dict()) == list(net.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(back.parameters(), net.parameters(), strict=True))


def test_neither_shares_memory_nor_changes():
    net = whole().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    model = fn.from_torch(net)
    back = model.to_torch()
    kept = model.state_dict()
    fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1)).fit(X, X[:, :4], epochs=1)
    with torch.no_grad():
        back[0].weight.zero_()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert (model.state_dict()["0.weight"] != kept["0.weight"]).any()


def test_modes_and_frozen_parameters():
    net = whole()
    net[5].eval()
    net[0].weight.requires_grad_(False)
    model = fn.from_torch(net)
    assert [layer.training for _, layer in model.layers] == [True] * 6 + [False]
    assert model.frozen == ["0.weight"]
    back = model.to_torch()
    assert [m.training for m in back] == [m.training for m in net]
    assert [p.requires_grad for p in back.parameters()] == [
        p.requires_grad for p in net.parameters()
    ]


def test_training_goes_on_as_in_torch():
    """The same steps of SGD on both sides."""
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    model = fn.from_torch(net)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1))
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for _ in range(5):
        trainer.train_on_batch(X, X[:, :2])
        optimizer.zero_grad()
        nn.MSELoss()(net(torch.from_numpy(X)), torch.from_numpy(X[:, :2])).backward()
        optimizer.step()
    np.testing.assert_allclose(model.predict(X), run(net, X), rtol=0, atol=1e-13)


@pytest.mark.parametrize("flat", [False, True])
def test_an_embedding_of_one_column(flat):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(5, 3), *[nn.Flatten()] * flat, nn.Linear(3, 2)).eval()
    codes = np.arange(5)[:, None]
    wanted = net(torch.from_numpy(codes if flat else codes[:, 0])).detach().numpy()
    model = fn.from_torch(net)
    np.testing.assert_allclose(model.predict(codes), wanted, rtol=0, atol=1e-6)
    with pytest.raises(fn.errors.UsageError, match=r"0 \(Embedding\)"):
        model.to_torch()


def test_one_module_alone():
    module = nn.Linear(6, 2)
    model = fn.from_torch(module)
    np.testing.assert_array_equal(model[0].weight, module.weight.detach().numpy())


class Own(nn.Linear):
    """A subclass may compute anything."""


def test_all_that_is_missing_is_listed():
    hooked = nn.Tanh()
    hooked.register_forward_hook(lambda *_: None)
    net = nn.Sequential(
        *(nn.Conv1d(1, 1, 1), nn.Sequential(Own(6, 2), nn.Softmax(0)), hooked, nn.Flatten(0)),
        *(nn.Embedding(3, 2), nn.LayerNorm((2, 3)), nn.Sequential()),
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)),
    )
    with pytest.raises(fn.errors.UsageError) as caught:
        fn.from_torch(net)
    told = str(caught.value)
    for name in (
        *("0 (Conv1d)", "1.0 (Own)", "1.1 (Softmax: dim is 0)", "2 (Tanh: it has hooks)"),
        *("3 (Flatten: start_dim is 0", "4 (Embedding: expected the first", "5 (LayerNorm: norm"),
        *("6 (Sequential: it is empty)", "7 (ParametrizedLinear)"),
    ):
        assert name in told


def test_what_is_no_sequential_is_refused():
    for wrong in (3, None, [nn.Linear(2, 2)], nn.Linear):
        with pytest.raises(fn.errors.HyperparameterError, match=r"expected a torch\.nn\.Seq"):
            fn.from_torch(wrong)
    mixed = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    for net in (mixed, nn.Sequential(nn.Linear(2, 2).half())):
        with pytest.raises(fn.errors.UsageError, match=r"write module\.float\(\)"):
            fn.from_torch(net)
    with pytest.raises(fn.errors.UsageError, match="no modules"):
        fn.from_torch(nn.Sequential())
    module = nn.Linear(2, 2)
    with torch.no_grad():
        module.weight[0, 0] = float("nan")
    with pytest.raises(fn.errors.UsageError, match="NaN"):
        fn.from_torch(module)


def test_layers_that_torch_lacks_are_listed():
    model = fn.Sequential(
        fn.Linear(6, 6), fn.Residual(fn.NTKLinear(6, 6)), fn.Sequential(fn.Scale(6)), fn.ReLU()
    )
    with pytest.raises(fn.errors.UsageError) as caught:
        model.to_torch()
    told = str(caught.value)
    assert all(n in told for n in ("1 (Residual)", "1.0 (NTKLinear)", "2.0 (Scale)"))
    assert "Linear)," not in told.replace("NTKLinear", "") and "ReLU" not in told
    scheduled = fn.Sequential(fn.Dropout(fn.schedules.LinearLR(0.5, total_iters=3)))
    with pytest.raises(fn.errors.UsageError, match=r"0 \(Dropout\)"):
        scheduled.to_torch()


def test_random_numbers_of_torch_stay_as_they_were():
    model = fn.Sequential(fn.Linear(6, 2))
    torch.manual_seed(0)
    first = torch.rand(1)
    torch.manual_seed(0)
    model.to_torch()
    assert torch.equal(torch.rand(1), first)


def test_modules_that_share_all_parameters_are_one_layer():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight, second.bias = first.weight, first.bias
    module = nn.Sequential(first, nn.Tanh(), nn.Sequential(second), nn.Tanh()).double()
    model = fn.from_torch(module)
    x = torch.tensor(X)
    np.testing.assert_allclose(model.predict(X), module(x).detach().numpy(), rtol=1e-12)
    loss = model.value_and_grad(fn.MSELoss(), X, np.zeros((7, 6)))
    theirs = nn.MSELoss()(module(x), torch.zeros(7, 6, dtype=torch.float64))
    theirs.backward()
    np.testing.assert_allclose(loss, theirs.item(), rtol=1e-12)
    np.testing.assert_allclose(model.grads["0.weight"], first.weight.grad.numpy(), rtol=1e-9)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: (nn.Linear(6, 6), nn.Linear(6, 6)), "2 (Linear: it shares weight with 0"),
        (
            lambda: (nn.LayerNorm(6), nn.LayerNorm(6, eps=0.1)),
            "2 (LayerNorm: it shares weight with 0",
        ),
        (lambda: (nn.RMSNorm(6), nn.PReLU(6)), "2 (PReLU: it shares weight with 0"),
    ],
)
def test_modules_that_share_some_of_their_parameters_are_refused(make, told):
    first, second = make()
    second.weight = first.weight
    with pytest.raises(fn.errors.UsageError) as caught:
        fn.from_torch(nn.Sequential(first, nn.Tanh(), second))
    assert f"{told}, but is not the same otherwise)" in str(caught.value)
