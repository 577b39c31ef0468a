"""Record: what it measures, held to plain NumPy, and that it changes nothing."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest
from missing import hide
from refusals import refused

import fastnet as fn
from fastnet.errors import DataError, HyperparameterError, MissingExtra, StateDictError, UsageError

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(90, 3)).astype("f")
Y = np.sin(X[:, :2])
LABELS = (X[:, 0] > 0).astype(int)


def net(backend="c", dtype="float32"):
    layers = fn.Linear(3, 8), fn.BatchNorm1d(8), fn.ReLU(), fn.Dropout(0.3)
    return fn.Sequential(
        *layers, fn.Linear(8, 6), fn.Tanh(), fn.Linear(6, 2), dtype=dtype, backend=backend, seed=1
    )


def trained(callbacks=(), backend="c", epochs=4, y=Y, loss=None, make=net, **options):
    given = {name: options.pop(name) for name in ("optimizer", "averaging") if name in options}
    loss = fn.MSELoss() if loss is None else loss
    trainer = fn.Trainer(make(backend), loss, seed=3, **given)
    trainer.fit(X, y, epochs, 7, callbacks=callbacks, verbose=0, **options)
    return trainer


def bits(trainer):
    records = [{n: v for n, v in r.items() if "second" not in n} for r in trainer.history.records]
    state = trainer.optimizer.state_dict(trainer.model)
    model = trainer.model
    return (
        {name: value.tobytes() for name, value in model.state_dict().items()},
        {name: np.asarray(value).tobytes() for name, value in state.items()},
        {name: value.tobytes() for name, value in model.grads.items()},
        (model._draws, model.seed, [layer.training for _, layer in model.layers]),
        records,
        trainer.step,
    )


CASES = {
    "plain": {},
    "validated": {"validation_data": (X[:20], Y[:20])},
    "weighted": {"sample_weight": RANDOM.random(90)},
    "schedule-free": {"optimizer": lambda: fn.ScheduleFreeSGD(0.1)},
    "averages": {"averaging": lambda: fn.EMA(0.9, evaluate=True)},
    "modes": {"respect_modes": True},
    "accumulated": {"accumulation_steps": 3},
}


@pytest.mark.parametrize("case", CASES)
def test_the_bits_of_a_fit_are_those_without_it(backend, case):
    def given():
        return {n: v() if callable(v) else v for n, v in CASES[case].items()}

    with_it = trained([fn.Record(rows=11)], backend, **given())
    assert bits(with_it) == bits(trained([], backend, **given()))


def test_the_bits_of_many_nets_are_those_without_it():
    def fitted(callbacks):
        trainers = [fn.Trainer(net(), fn.MSELoss(), seed=s) for s in (1, 2)]
        rows = [np.arange(41), np.arange(41, 90)]
        fn.fit_many(trainers, X, Y, rows=rows, epochs=3, batch_size=7, callbacks=callbacks)
        return trainers

    records = [[fn.Record()], [fn.Record()]]
    assert [*map(bits, fitted(records))] == [*map(bits, fitted([[], []]))]
    for (record,) in records:
        assert [one["epoch"] for one in record.history] == [0, 1, 2, 3]
    for rows, (record,) in zip((np.arange(41), np.arange(41, 90)), records, strict=True):
        (expected, *_) = outputs(net(), X[rows])  # each on rows of its own
        found = record.history[0]["activations"]["0"]["mean"]
        assert found == pytest.approx(expected.mean(), rel=1e-4)


def outputs(model, x):
    """Each layer's outputs in evaluation mode, by NumPy in float64."""
    state = {name: value.astype(np.float64) for name, value in model.state_dict().items()}
    h = [x @ state["0.weight"].T + state["0.bias"]]
    scale = state["1.weight"] / np.sqrt(state["1.running_var"] + 1e-5)
    h.append((h[-1] - state["1.running_mean"]) * scale + state["1.bias"])
    h.append(np.maximum(h[-1], 0))
    h.append(h[-1])
    h.append(h[-1] @ state["4.weight"].T + state["4.bias"])
    h.append(np.tanh(h[-1]))
    h.append(h[-1] @ state["6.weight"].T + state["6.bias"])
    return h


def test_activations_are_those_of_the_rows_in_evaluation_mode(backend):
    record = fn.Record(rows=[5, 0, 77], gradients=False)
    trainer = trained([record], backend)
    assert [one["epoch"] for one in record.history] == [0, 1, 2, 3, 4]
    assert [one["step"] for one in record.history] == [0, 13, 26, 39, 52]
    last = record.history[-1]["activations"]
    for path, expected in enumerate(outputs(trainer.model, X[[5, 0, 77]])):
        found = last[str(path)]
        assert found["layer"] == type(trainer.model[path]).__name__
        points = np.percentile(expected, [15, 50, 85])
        wanted = {"mean": expected.mean(), "std": expected.std()}
        wanted |= dict(zip(("p15", "p50", "p85"), points, strict=True))
        for name, value in wanted.items():
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-5), (path, name)
    assert "gradients" not in record.history[-1] and "updates" not in record.history[-1]


def test_the_sample_is_spread_over_the_rows():
    for rows, index in ((4, [0, 29, 59, 89]), (1, [0]), (10**20, np.arange(90))):
        a, b = fn.Record(gradients=False, rows=rows), fn.Record(gradients=False, rows=index)
        trained([a, b])
        assert a.history == b.history


def test_dead_units_are_0_for_all_rows():
    model = fn.Sequential(fn.Linear(3, 4), fn.ReLU(), fn.Linear(4, 2), seed=0)
    with model.edit() as p:
        p["0.bias"][:] = [-100, 100, -100, -0.2]  # the last one is 0 for some rows
    record = fn.Record(gradients=False)
    fn.Trainer(model, fn.MSELoss(), fn.SGD(0.0)).fit(X, Y, callbacks=[record], verbose=0)
    assert record.history[-1]["activations"]["1"]["dead"] == 0.5
    assert "dead" not in record.history[-1]["activations"]["0"]


RANGES = [
    (fn.Tanh(), [-0.991, -0.989, 0.0, 0.989, 0.991], 0.4),
    (fn.Sigmoid(), [0.009, 0.011, 0.5, 0.989, 0.991], 0.4),
    (fn.ScaledTanh(2.0, 1.0), [-1.99, -1.97, 0.0, 1.97, 1.99], 0.4),
    (fn.Hardtanh(-2, 4), [-2.0, -1.97, -1.95, 3.95, 4.0], 0.6),
    (fn.Hardsigmoid(), [0.0, 0.011, 0.5, 0.9, 1.0], 0.4),
    (fn.Softsign(), [-0.995, -0.98, 0.0, 0.98, 0.995], 0.4),
]


@pytest.mark.parametrize(("layer", "values", "share"), RANGES, ids=lambda v: type(v).__name__)
def test_saturated_outputs_are_near_an_end_of_the_range(layer, values, share):
    from fastnet.train.record import described

    assert described(layer, np.array([values]))["saturated"] == pytest.approx(share)
    model = fn.Sequential(fn.Linear(3, 4), copy.deepcopy(layer), seed=0)
    with model.edit() as p:
        p["0.bias"][:] = 1000.0
    record = fn.Record(gradients=False)
    fn.Trainer(model, fn.MSELoss(), fn.SGD(0.0)).fit(
        X, X[:, [0] * 4], callbacks=[record], verbose=0
    )
    assert record.history[-1]["activations"]["1"]["saturated"] == 1.0


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_are_those_of_the_rows_at_once(backend, weighted, reduction):
    loss = fn.CrossEntropyLoss(weight=[1.0, 3.0], reduction=reduction)
    w = RANDOM.random(90) if weighted else None
    record = fn.Record(activations=False, rows=30)
    options = {"y": LABELS, "loss": loss, "sample_weight": w}
    make = lambda backend: fn.Sequential(  # noqa: E731
        fn.Linear(3, 4), fn.Tanh(), fn.Linear(4, 2), backend=backend, dtype="float64", seed=1
    )
    trainer = trained([record], backend, make=make, **options)
    index = np.linspace(0, 89, 30).astype(int)
    part = None if w is None else w[index]
    of_all = np.array([1.0, 3.0])[LABELS] * (1.0 if w is None else w)
    mean = {} if reduction == "sum" else {"weight_mean": float(of_all.mean())}
    trainer.model.value_and_grad(loss, X[index], LABELS[index], sample_weight=part, **mean)
    for name, g in trainer.model.grads.items():
        found = record.history[-1]["gradients"][name]
        assert found == pytest.approx(float(np.linalg.norm(g)), rel=1e-10)
    assert "activations" not in record.history[-1]


def test_updates_are_relative_to_the_weights():
    class Keep(fn.Callback):
        def on_train_begin(self):
            self.seen = [self.trainer.model.state_dict()]

        def on_epoch_end(self, epoch, logs):
            if epoch % 2 == 0:
                self.seen.append(self.trainer.model.state_dict())

    keep, record = Keep(), fn.Record(activations=False, every=2)
    trained([keep, record])
    assert [one["epoch"] for one in record.history] == [0, 2, 4]
    assert "updates" not in record.history[0]
    for i in (1, 2):
        for name, found in record.history[i]["updates"].items():
            before, now = (keep.seen[k][name].astype("d") for k in (i - 1, i))
            expected = np.linalg.norm(now - before) / np.linalg.norm(now)
            assert found == pytest.approx(expected, rel=1e-6)


def test_updates_of_weights_that_are_or_were_zero():
    from fastnet.train.record import _ratio

    zero, one = np.zeros(3), np.ones(3)
    assert (_ratio(zero, zero), _ratio(one, zero), _ratio(zero, one)) == (0.0, 1.0, None)


def test_a_sample_whose_loss_overflows_does_not_end_the_fit():
    def loss(output, y):
        return (np.nan if len(y) == 90 else 0.0), np.zeros_like(output)

    record = fn.Record()
    assert len(trained([record], loss=loss).history) == 4
    assert all(np.isnan(v) for v in record.history[-1]["gradients"].values())


def test_a_further_fit_goes_on_and_another_trainer_starts_anew():
    record = fn.Record()
    trainer = trained([record], epochs=2)
    trainer.fit(X, Y, 2, 7, callbacks=[record], verbose=0)
    assert [one["epoch"] for one in record.history] == [0, 1, 2, 3, 4]
    whole = fn.Record()
    trained([whole], epochs=4)
    assert record.history == whole.history
    trained([record], epochs=1)
    assert [one["epoch"] for one in record.history] == [0, 1]
    trainer.fit(X, Y, 1, 7, callbacks=[record], verbose=0)
    assert [one["epoch"] for one in record.history] == [4, 5]  # though it is further on
    trainer.reset()
    trainer.fit(X, Y, 1, 7, callbacks=[record], verbose=0)
    assert [one["epoch"] for one in record.history] == [0, 1]


def test_a_resumed_fit_continues_it(tmp_path):
    class Stop(fn.Callback):
        """Ctrl-C after the third epoch, the first time."""

        def on_epoch_end(self, epoch, logs):
            if epoch == 3 and not stopped:
                stopped.append(epoch)
                raise KeyboardInterrupt

    stopped = []
    whole, path = fn.Record(), tmp_path / "run.safetensors"
    trained([whole], epochs=5)

    def run(record):
        trainer = fn.Trainer(net(), fn.MSELoss(), seed=3)
        options = {"checkpoint": path, "checkpoint_every": "1 epoch", "verbose": 0}
        trainer.fit(X, Y, 5, 7, callbacks=[record, Stop()], **options)

    with pytest.raises(KeyboardInterrupt):
        run(fn.Record())
    record = fn.Record()
    run(record)
    assert record.history == whole.history
    assert pickle.dumps(record.state_dict()["before/0.weight"]) == pickle.dumps(
        whole.state_dict()["before/0.weight"]
    )


def test_its_state_is_plain():
    record = fn.Record()
    trained([record])
    state = record.state_dict()
    plain = {n: v.tolist() if isinstance(v, np.ndarray) else v for n, v in state.items()}
    assert json.loads(json.dumps(plain)) == plain
    other = fn.Record()
    other.load_state_dict(state)
    assert other.history == record.history and other.history is not state["history"]
    state["history"][0]["activations"]["0"]["mean"] = 7.0  # a copy
    assert record.history[0]["activations"]["0"]["mean"] != 7.0


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("history"),
        lambda s: s.update(history=3),
        lambda s: s.update(history=[{}]),
        lambda s: s.update(other=3),
        lambda s: s.update(trained_epoch=-1),
        lambda s: s.update({"before/0.weight": "a"}),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change):
    record = fn.Record()
    trained([record])
    state, before = record.state_dict(), copy.deepcopy(record.history)
    change(state)
    refused(lambda: record.load_state_dict(state), StateDictError, "state_dict")
    assert record.history == before
    refused(lambda: record.load_state_dict(3), StateDictError, "^state_dict is 3")


def test_copies_and_pickles_have_the_history_alone():
    record = fn.Record(rows=5)
    trained([record])
    for other in (copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other.history == record.history and other.rows == 5 and other._twin is None


def test_a_frame():
    pandas = pytest.importorskip("pandas")
    record = fn.Record(every=2)
    trained([record])
    frame = record.to_frame()
    assert [*frame.columns] == ["epoch", "step", "name", "quantity", "value"]
    one = frame[(frame.name == "2") & (frame.quantity == "dead")]
    assert [*one.epoch] == [0, 2, 4]
    assert [*one.value] == [r["activations"]["2"]["dead"] for r in record.history]
    table = frame[frame.quantity == "update"].pivot(index="epoch", columns="name", values="value")
    assert isinstance(table, pandas.DataFrame) and table.shape == (2, 8)
    assert {*frame.quantity} == {
        *("mean", "std", "p15", "p50", "p85", "dead", "saturated", "gradient", "update")
    }


def test_frames_of_histories():
    pytest.importorskip("pandas")
    history = trained(validation_data=(X[:9], Y[:9])).history
    frame = history.to_frame()
    assert frame.to_dict("records") == history.records
    assert [*frame.columns][:3] == ["epoch", "loss", "val_loss"]
    assert len(fn.History().to_frame()) == 0


def test_without_pandas_frames_say_how_to_get_it(monkeypatch):
    hide(monkeypatch, "pandas")
    for owner in (fn.History(), fn.Record()):
        with pytest.raises(MissingExtra, match=r'pip install "fastnet-engine\[pandas\]"'):
            owner.to_frame()


def test_layers_of_nested_models_have_their_paths():
    inner = fn.Sequential(fn.Linear(3, 3), fn.Tanh())
    model = fn.Sequential(inner, fn.Linear(3, 2), seed=0)
    record = fn.Record()
    fn.Trainer(model, fn.MSELoss()).fit(X, Y, callbacks=[record], verbose=0)
    assert [*record.history[0]["activations"]] == ["0.0", "0.1", "1"]
    assert [*record.history[0]["gradients"]] == ["0.0.weight", "0.0.bias", "1.weight", "1.bias"]


def test_what_is_refused():
    wanted = "; expected an integer ≥ 1, or a list of the indices of different rows$"
    for bad in (0, -1, 1.5, "3", None, [], [1, 1], [-1], [0.5], [[1]], np.zeros((2, 2)), {1}):
        refused(lambda bad=bad: fn.Record(rows=bad), HyperparameterError, f"^rows is .*{wanted}")
    before = bits(trained())
    trainer = trained()
    for rows, kind, message in (
        ([3, 90], DataError, "^Record: rows has the index 90; expected less than 90"),
        (1, HyperparameterError, "^Record: rows is 1; expected at least 2 rows .* batchnorm"),
    ):
        refused(
            lambda rows=rows: trainer.fit(X, Y, callbacks=[fn.Record(rows=rows)], verbose=0),
            kind,
            message,
        )
        assert bits(trainer) == before
    record = fn.Record()
    record.trainer = trainer
    refused(record.on_train_begin, UsageError, "^Record measures within a fit")


def stream():
    return [(X[i : i + 9], Y[i : i + 9]) for i in range(0, 90, 9)]


@pytest.mark.parametrize("make", [stream, lambda: stream], ids=["list", "function"])
def test_minibatches_as_they_come(backend, make):
    """The sample is of the last ones, and nothing is measured before they come."""

    def fitted(callbacks):
        trainer = fn.Trainer(net(backend), fn.MSELoss(), seed=3)
        trainer.fit(make(), epochs=3, callbacks=callbacks, verbose=0)
        return trainer

    record = fn.Record(rows=5)
    trainer = fitted([record])
    assert bits(trainer) == bits(fitted([]))
    assert [one["epoch"] for one in record.history] == [1, 2, 3]
    assert [*record.history[-1]] == ["epoch", "step", "activations", "gradients", "updates"]
    if make is not stream:  # one by one
        last = X[81:][np.linspace(0, 8, 5).astype(int)]
        found = record.history[-1]["activations"]["0"]["mean"]
        assert found == pytest.approx(outputs(trainer.model, last)[0].mean(), rel=1e-4, abs=1e-6)
    refused(
        lambda: fitted([fn.Record(rows=[1, 2])]),
        HyperparameterError,
        r"^Record: rows is \[1, 2\]; expected a number of rows where minibatches come",
    )


def test_sparse_and_scaled_inputs():
    sparse = pytest.importorskip("scipy.sparse")
    whole = np.where(RANDOM.random((90, 3)) < 0.5, RANDOM.integers(0, 255, (90, 3)), 0)
    found = []
    for x in (sparse.csr_array(whole / 255), fn.Scaled(whole.astype("u1"), 1 / 255), whole / 255):
        record = fn.Record(rows=20)
        trainer = fn.Trainer(net(), fn.MSELoss(), seed=3)
        trainer.fit(x, Y, 2, 7, callbacks=[record], verbose=0)
        first, *_, last = record.history
        assert len(last["gradients"]) == 8
        found.append([first["activations"][path]["mean"] for path in first["activations"]])
    np.testing.assert_allclose(found[:2], found[1:], rtol=1e-4, atol=1e-6)
