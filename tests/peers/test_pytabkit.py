"""RealMLP against pytabkit's own nets, optimizer and schedules, in float64, with dropout off."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastnet as fn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch")
    pytest.importorskip("pytabkit")
    from pytabkit.models.alg_interfaces.base import InterfaceResources, SplitIdxs
    from pytabkit.models.data.data import DictDataset, ParallelDictDataLoader, TensorInfo
    from pytabkit.models.optim.optimizers import get_opt_class
    from pytabkit.models.sklearn.default_params import DefaultParams
    from pytabkit.models.training.nn_creator import NNCreator
    from pytabkit.models.training.scheduling import LearnerProgress

pytestmark = pytest.mark.filterwarnings("ignore:::(torch|pytabkit|sklearn)")

ROWS, BATCH, EPOCHS, STEPS = 200, 32, 20, 102
FEW, MANY = 3, 12  # categories


@pytest.fixture(autouse=True)
def in_float64(monkeypatch):
    """pytabkit computes in PyTorch's default dtype, and converts labels to float32."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(before)


def data(task):
    random = np.random.default_rng(0)
    numbers = random.normal(size=(ROWS, 5)) * [1, 20, 1, 0.1, 3] + [0, 7, 0, 0, -2]
    numbers[:, 2] = np.round(numbers[:, 2])
    codes = np.stack([random.integers(0, k, ROWS) for k in (FEW, MANY)], axis=1)
    score = np.sin(numbers[:, 0]) + 0.3 * numbers[:, 4] + 0.2 * (codes.sum(axis=1) % 5)
    if task == "regression":
        return numbers, codes, 5 + 2 * score[:, None]
    return numbers, codes, np.digitize(score, np.quantile(score, [0.4, 0.7]))[:, None]


class Theirs:
    """pytabkit's net for these data, which trains by pytabkit's optimizer and schedules."""

    def __init__(self, task, preset):
        numbers, codes, y = data(task)
        kind = "CLASS" if task == "classification" else "REG"
        name = f"RealMLP_TD{'' if preset == 'full' else '_S'}_{kind}"
        config = {**getattr(DefaultParams, name), "n_epochs": EPOCHS, "batch_size": BATCH}
        config["p_drop"] = 0.0
        classes = 3 if kind == "CLASS" else 0
        self.ds = DictDataset(
            {
                "x_cont": torch.tensor(numbers),
                "x_cat": torch.tensor(codes + 1),  # 0 stands for what is missing
                "y": torch.tensor(y),
            },
            {
                "x_cont": TensorInfo(feat_shape=[5]),
                "x_cat": TensorInfo(cat_sizes=[FEW + 1, MANY + 1]),
                "y": TensorInfo(cat_sizes=[classes]),
            },
        )
        rows = torch.arange(ROWS)[None]
        split = SplitIdxs(rows, None, None, 1, [2], 0)
        self.creator = NNCreator(**config)
        self.creator.setup_from_dataset(self.ds, [split], InterfaceResources(1, []))
        torch.manual_seed(3)
        self.model = self.creator.create_model(self.ds, [split])
        loader = ParallelDictDataLoader(
            self.creator.static_model(self.ds), rows, BATCH, shuffle=False, drop_last=True
        )
        self.batches = list(loader)
        self.criterion, _ = self.creator.get_criterions()
        groups = [{"params": [p], "lr": 0.01} for p in self.model.parameters()]
        self.optimizer = get_opt_class("adam")(groups, self.creator.hp_manager)
        self.progress = LearnerProgress()
        self.progress.max_epochs = EPOCHS

    def parameters(self):
        """Copies by scope, such as "net/first_layer/layer-0/weight"."""
        return {str(p.context.scope): p.detach().numpy()[0].copy() for p in self.model.parameters()}

    def train(self, steps):
        """As TabNNModule and its callbacks do; returns the losses."""
        self.model.train()
        losses, count = [], len(self.batches)
        for step in range(steps):
            self.progress.epoch_float = step / count
            self.creator.hp_manager.update_hypers(self)
            batch = self.batches[step % count]
            output = self.model(batch)
            loss = self.criterion(output["x_cont"], output["y"]).sum()
            loss.backward()
            self.optimizer.step(loss=loss)
            self.optimizer.zero_grad()
            losses.append(loss.item())
        return np.array(losses)


def ours(task, preset):
    """The recipe for the same data, and its inputs and targets."""
    numbers, codes, y = data(task)
    one_hot = [np.eye(FEW)[codes[:, 0]]]
    if preset == "small":
        one_hot.append(np.eye(MANY)[codes[:, 1]])
    X = np.concatenate([numbers, *one_hot], axis=1)
    X = fn.Sequential(fn.preprocess.RobustScaler().fit(X), dtype="float64").predict(X)
    more = {}
    if preset == "full":
        X, more["categories"] = np.concatenate([X, codes[:, 1:]], axis=1), [MANY]
    y = (y - y.mean()) / y.std() if task == "regression" else y[:, 0]
    recipe = fn.recipes.realmlp(
        5,
        3 if task == "classification" else 1,
        task=task,
        preset=preset,
        n_onehot=FEW + (MANY if preset == "small" else 0),
        total_steps=EPOCHS * (ROWS // BATCH),
        dropout=0.0,
        dtype="float64",
        **more,
    )
    return recipe, X, y


def in_our_shapes(found, model):
    """pytabkit's parameters as a state dict of our net."""
    state = {}
    linear = iter([name for name, layer in model.layers if isinstance(layer, fn.NTKLinear)])
    acts = iter([n for n, layer in model.layers if isinstance(layer, fn.ParametricActivation)])
    at = {type(layer): name for name, layer in model.layers}
    for scope, value in found.items():
        last = scope.rpartition("/")[2]
        if "/plr/" in scope:
            kind = f"{at[fn.PBLD]}.{last}"
            state[kind] = value.reshape(model.named_parameters()[kind].shape)
        elif "/emb" in scope:  # theirs has the row of what is missing first, ours has it last
            state[f"{at[fn.Embedding]}.weight_0"] = np.roll(value, -1, axis=0)
        elif last == "scale":
            state[f"{at[fn.Scale]}.weight"] = value[0]
        elif last == "weight":
            name = next(linear)
            state[f"{name}.weight"] = value.T
        elif last == "bias":
            state[f"{name}.bias"] = value[0]
        else:
            assert last == "act", scope
            state[f"{next(acts)}.weight"] = value[0]
    return state


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("preset", ["small", "full"])
def test_a_hundred_steps_are_those_of_pytabkit(task, preset):
    theirs, (recipe, X, y) = Theirs(task, preset), ours(task, preset)
    model, loss, optimizer = recipe
    model.load_state_dict(in_our_shapes(theirs.parameters(), model))
    trainer = fn.Trainer(model, loss, optimizer, metrics={}, seed=0)
    start = model.predict(X)
    theirs.model.eval()
    losses = theirs.train(STEPS)
    got = []
    callback = Steps(got)
    epochs = STEPS // (ROWS // BATCH)
    trainer.fit(X, y, epochs, BATCH, shuffle=False, drop_last=True, verbose=0, callbacks=[callback])
    np.testing.assert_allclose(got, losses.reshape(epochs, -1).mean(axis=1), rtol=1e-10)
    want = in_our_shapes(theirs.parameters(), model)
    for name, value in model.state_dict().items():
        scale = np.abs(want[name]).max()
        np.testing.assert_allclose(value, want[name], rtol=0, atol=1e-10 * scale, err_msg=name)
    assert np.abs(model.predict(X) - start).max() > 0.1


class Steps(fn.Callback):
    """Keeps the loss of each epoch."""

    def __init__(self, found):
        self.found = found

    def on_epoch_end(self, epoch, logs):
        self.found.append(logs["loss"])


def test_initial_weights_have_pytabkits_deviations():
    """And biases its spread: both draw, so that statistics alone can agree."""
    theirs = Theirs("classification", "full")
    recipe, X, _ = ours("classification", "full")
    model = recipe.model
    fn.recipes.init_from_data(model, X)
    mine, other = model.state_dict(), in_our_shapes(theirs.parameters(), model)
    linear = [name for name, layer in model.layers if isinstance(layer, fn.NTKLinear)]
    for name in linear[:3]:
        for part in ("weight", "bias"):
            a, b = mine[f"{name}.{part}"], other[f"{name}.{part}"]
            assert a.std() == pytest.approx(b.std(), rel=0.25), (name, part)
