"""TabM against its authors' package: 100 steps from equal initial values in float64, without dropout."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn
from fastnet.layers.piecewise import quantile_bins

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    tabm = pytest.importorskip("tabm")
    embeddings = pytest.importorskip("rtdl_num_embeddings")

pytestmark = pytest.mark.filterwarnings("ignore:::torch", "ignore:::tabm")

K, WIDTH, ROWS, NUMERIC, BATCH, STEPS = 5, 24, 120, 4, 30, 100
ONEHOT = (3, 2)


def data(task, onehot):
    random = np.random.default_rng(8)
    x = random.normal(size=(ROWS, NUMERIC))
    codes = [random.integers(0, width, ROWS) for width in onehot]
    y = x[:, 0] * x[:, 1] + np.sin(2 * x[:, 2]) + 0.3 * sum(codes)
    columns = [np.eye(width)[code] for width, code in zip(onehot, codes, strict=True)]
    if task == "classification":
        return x, codes, np.column_stack([x, *columns]), np.digitize(y, [-0.7, 0.7])
    return x, codes, np.column_stack([x, *columns]), (y - y.mean()) / y.std()


@pytest.fixture(autouse=True)
def doubles():
    """float64 from the start: the package keeps the edges of bins in float32 otherwise."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def theirs(task, bins, onehot):
    torch.manual_seed(3)
    embedding = None
    if bins is not None:
        edges = [torch.tensor(own) for own in bins]
        embedding = embeddings.PiecewiseLinearEmbeddings(edges, 6, activation=False, version="B")
    return tabm.TabM.make(
        n_num_features=NUMERIC,
        cat_cardinalities=list(onehot),
        d_out=3 if task == "classification" else 1,
        num_embeddings=embedding,
        k=K,
        d_block=WIDTH,
        dropout=0.0,
    )


def names_of(model):
    """Our names of parameters by theirs."""
    layers = [(path, layer) for path, layer in model.layers]
    inner = [path for path, layer in layers if isinstance(layer, fn.LinearBatchEnsemble)]
    (last,) = [path for path, layer in layers if isinstance(layer, fn.LinearEnsemble)]
    found = {f"output.{name}": f"{last}.{name}" for name in ("weight", "bias")}
    for number, path in enumerate(inner):
        for name in ("weight", "r", "s", "bias"):
            found[f"backbone.blocks.{number}.0.{name}"] = f"{path}.{name}"
    for path, layer in layers:
        if isinstance(layer, fn.PiecewiseLinear):
            found["num_module.linear0.weight"] = f"{path}.linear_weight"
            found["num_module.linear0.bias"] = f"{path}.bias"
            found["num_module.linear.weight"] = f"{path}.weight"
    return found


def ours_of(name, value, model):
    """A value of theirs in our shape: bins of a feature, which theirs has the last of at the end."""
    value = value.detach().numpy()
    if name == "num_module.linear.weight":
        (layer,) = [la for _, la in model.layers if isinstance(la, fn.PiecewiseLinear)]
        counts = [len(own) - 1 for own in layer.bins]
        rows = [np.concatenate([w[: n - 1], w[-1:]]) for w, n in zip(value, counts, strict=True)]
        return np.concatenate(rows)
    return value.reshape(-1) if name == "num_module.linear0.bias" else value


def values_of(module, model):
    named = dict(module.named_parameters())
    return {mine: ours_of(name, named[name], model) for name, mine in names_of(model).items()}


@pytest.mark.parametrize("onehot", [(), ONEHOT], ids=["numbers", "categories"])
@pytest.mark.parametrize("embedded", [False, True], ids=["plain", "embedded"])
@pytest.mark.parametrize("task", ["classification", "regression"])
def test_steps_are_those_of_the_package(backend, task, embedded, onehot):
    x, codes, columns, y = data(task, onehot)
    bins = quantile_bins(x, 7) if embedded else None
    module = theirs(task, bins, onehot)
    outputs = 3 if task == "classification" else 1
    recipe = fn.recipes.tabm(
        NUMERIC,
        outputs,
        task=task,
        k=K,
        width=WIDTH,
        dropout=0.0,
        bins=bins,
        embedding_dim=6,
        onehot=onehot,
        dtype="float64",
        backend=backend,
        seed=1,
    )
    model = recipe.model
    given = values_of(module, model)
    assert {n: v.shape for n, v in given.items()} == {
        n: v.shape for n, v in model.state_dict().items()
    }
    model.load_state_dict(given)

    given_x = [torch.tensor(x)]
    if onehot:
        given_x.append(torch.tensor(np.column_stack(codes)))
    target = torch.tensor(y)
    rule = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=3e-4)
    criterion = torch.nn.functional.cross_entropy if outputs > 1 else torch.nn.functional.mse_loss
    for step in range(STEPS):
        at = slice(step % (ROWS // BATCH) * BATCH, (step % (ROWS // BATCH) + 1) * BATCH)
        found = module(*[part[at] for part in given_x])  # (batch, k, outputs)
        flat = found.flatten(0, 1) if outputs > 1 else found.flatten()
        criterion(flat, target[at].repeat_interleave(K)).backward()
        rule.step()
        rule.zero_grad()

    trainer = fn.Trainer(*recipe, metrics=[])
    trainer.fit(
        columns, y, epochs=STEPS * BATCH // ROWS, batch_size=BATCH, shuffle=False, verbose=0
    )
    for name, value in values_of(module, model).items():
        scale = np.abs(value).max()
        np.testing.assert_allclose(
            model.state_dict()[name], value, rtol=0, atol=1e-9 * scale, err_msg=name
        )
    module.eval()
    with torch.no_grad():
        found = module(*given_x)
    if outputs > 1:
        want = torch.softmax(found, dim=2).mean(dim=1).numpy()
        np.testing.assert_allclose(model.predict_proba(columns), want, rtol=1e-9)
    else:
        np.testing.assert_allclose(model.predict(columns), found.mean(dim=1).numpy(), atol=1e-9)


@pytest.mark.parametrize("embedded", [False, True])
def test_initial_values_are_distributed_as_theirs(embedded):
    """By their least and largest numbers, and by how many are different."""
    bins = quantile_bins(data("regression", ())[0], 7) if embedded else None
    module = theirs("regression", bins, ONEHOT)
    options = {"k": K, "width": WIDTH, "bins": bins, "embedding_dim": 6, "onehot": ONEHOT}
    model = fn.recipes.tabm(NUMERIC, 1, task="regression", seed=4, dtype="float64", **options).model
    mine = model.state_dict()
    for name, value in values_of(module, model).items():
        if name.endswith(".r"):
            assert len(np.unique(mine[name])) == len(np.unique(value)), name
            continue
        different = [[len(np.unique(v)) for v in (a, *a)] for a in (mine[name], value)]
        assert different[0] == different[1], name
        if np.unique(value).size > 20:
            ends = [(a.min(), a.max()) for a in (mine[name], value)]
            np.testing.assert_allclose(*ends, rtol=0.4, err_msg=name)
        elif np.unique(value).size == 1:
            np.testing.assert_array_equal(mine[name], value, err_msg=name)
