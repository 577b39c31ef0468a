"""Values: views that cannot be written, edits, predictions that are never stale, loading, seeds."""

from __future__ import annotations

import copy
import io
from contextlib import suppress

import numpy as np
import pytest

import fastnet as fn
from fastnet.errors import HyperparameterError

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3))
Y = RNG.normal(size=(12, 2))
BACKENDS = [name for name, info in fn.backends().items() if info.available]


def net(backend="auto", *, folded=True, dtype="float64", seed=1):
    """In a prediction batchnorm is folded into the linear layer before it, where there is one."""
    first, width = (fn.Linear(3, 5), 5) if folded else (fn.Tanh(), 3)
    layers = first, fn.BatchNorm1d(width), fn.ReLU(), fn.Linear(width, 2)
    return fn.Sequential(*layers, dtype=dtype, backend=backend, seed=seed)


def bits(model):
    return {name: (value.dtype.str, value.tobytes()) for name, value in model.state_dict().items()}


def views(model):
    yield from model.parameters()
    for named in (model.named_parameters(), model.grads):
        yield from named.values()
    for _, layer in model.layers:
        yield from (*layer.parameters(), *layer.grads.values())
    yield from (model[0].weight, model[0].bias, model[1].running_mean)


def test_views_cannot_be_written():
    model = net()
    for view in views(model):
        for array in (view, view.T, view[...], view.reshape(-1)):
            if np.shares_memory(array, view):
                with pytest.raises(ValueError, match="read-only"):
                    array[...] = 0


def test_views_follow_later_changes():
    model = net()
    kept, mean = model.named_parameters(), model[1].running_mean
    model.load_state_dict({name: value + 1 for name, value in net(seed=2).state_dict().items()})
    for name, value in net(seed=2).named_parameters().items():
        np.testing.assert_array_equal(kept[name], value + 1)
    np.testing.assert_array_equal(mean, 1)


@pytest.mark.parametrize("part", ["model", "layer", "lone layer"])
def test_a_state_dict_is_a_snapshot_that_any_writer_takes(part):
    model = net()
    part = {"model": model, "layer": model[0], "lone layer": fn.Linear(3, 5)}[part]
    state = part.state_dict()
    for array in state.values():
        assert array.flags.c_contiguous and array.flags.owndata and array.flags.writeable
    shown = {name: array.tolist() for name, array in state.items()}
    for array in state.values():  # as a writer that takes their memory as it is
        raw = np.frombuffer(array.data, array.dtype).reshape(array.shape)
        np.testing.assert_array_equal(raw, array)
        array[...] = 7
    assert {name: array.tolist() for name, array in part.state_dict().items()} == shown


def test_a_snapshot_follows_no_later_change(backend):
    model = net(backend)
    state = model.state_dict()
    kept = {name: value.copy() for name, value in state.items()}
    stepped(model)
    for name, value in state.items():
        np.testing.assert_array_equal(value, kept[name])
    np.savez(buffer := io.BytesIO(), **state)
    buffer.seek(0)
    model.load_state_dict(np.load(buffer))
    assert bits(model) == bits(net(backend))


def test_edit_writes_and_its_views_die(backend):
    model = net(backend)
    before = model.predict(X)
    with model.edit() as p:
        assert p.keys() == model.state_dict().keys()
        p["3.bias"][:] += 1
        np.testing.assert_allclose(model.predict(X), before + 1)
        p["3.bias"][:] += 1
        np.testing.assert_allclose(model.predict(X), before + 2)
        p["1.running_mean"][:] = 0.5  # of a batchnorm that is folded
        inside = model.predict(X)
        with pytest.raises(fn.errors.UsageError, match="edited elsewhere"):
            model.forward(X)
    assert not np.allclose(inside, before + 2)
    np.testing.assert_array_equal(model.predict(X), inside)
    for view in p.values():
        with pytest.raises(ValueError, match="read-only"):
            view[...] = 0


def test_what_is_kept_of_an_edit_writes_nothing_afterwards(backend):
    model = net(backend)
    with model.edit() as p:
        kept = [view[:1] for view in p.values() if view.ndim]
        p["3.bias"][:] = 5
    before, expected = bits(model), model.predict(X)
    for part in kept:
        with suppress(ValueError):
            part[...] = 9
    assert bits(model) == before
    np.testing.assert_array_equal(model.predict(X), expected)


def test_whatever_is_read_in_an_edit_is_what_was_edited(backend):
    model = net(backend)
    with model.edit() as p:
        for value in (4, 5):
            p["3.bias"][:] = value
            for read in (
                model.state_dict()["3.bias"],
                model.named_parameters()["3.bias"],
                model[3].state_dict()["bias"],
                model[3].bias,
                copy.deepcopy(model)[3].bias,
            ):
                np.testing.assert_array_equal(read, value)


def test_an_edit_that_fails_keeps_what_it_wrote_and_frees_the_model():
    model = net()
    with suppress(KeyError), model.edit() as p:
        p["3.bias"][:] = 9
        p["nothing"][:] = 9
    np.testing.assert_array_equal(model[3].bias, [9, 9])
    model.forward(X)
    with pytest.raises(ValueError, match="read-only"):
        p["3.bias"][:] = 8


def edited(model):
    with model.edit() as p:
        p["1.weight"][:] = 3.0


def restored(model):
    """A fit whose first epoch is the best, so that later ones are undone."""
    fit = fn.Trainer(model, fn.MSELoss(), fn.SGD(30.0), seed=0).fit
    fit(X, Y, 3, validation_data=(X, model.predict(X)), restore_best=True, verbose=0)


def stepped(model):
    model.value_and_grad(fn.MSELoss(), X, Y)
    model.predict(X)
    fn.SGD(0.5).step(model)


CHANGES = {
    "load_state_dict": lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
    "load some": lambda m: m.load_state_dict({"1.bias": m[1].bias - 9}, strict=False),
    "step": stepped,
    "edit": edited,
    "fit": lambda m: fn.Trainer(m, fn.MSELoss(), fn.SGD(0.5)).fit(X, Y, verbose=0),
    "reset_parameters": lambda m: m.reset_parameters(seed=8),
    "training forward": lambda m: m.forward(X),
    "value_and_grad": lambda m: m.value_and_grad(fn.MSELoss(), X, Y),
    "restore_best": restored,
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("folded", [True, False])
def test_a_prediction_is_never_stale(backend, change, folded):
    model = net(backend, folded=folded)
    before = model.predict(X)
    CHANGES[change](model)
    after = model.predict(X)
    fresh = net(backend, folded=folded, seed=99)
    fresh.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(after, fresh.predict(X))
    np.testing.assert_allclose(after, model.eval().forward(X), rtol=1e-9, atol=1e-12)
    assert not np.allclose(after, before)


def test_restore_best_forgets_the_worse_epochs(backend):
    model = net(backend)
    fit = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1), seed=0).fit
    history = fit(X, Y, 8, validation_data=(X, -Y), restore_best=True, verbose=0)
    scores = [record["val_loss"] for record in history.records]
    assert min(scores) < scores[-1]
    np.testing.assert_allclose(fn.MSELoss().forward(model.predict(X), -Y), min(scores))


def test_loading_strictly_and_not():
    model, state = net(), dict(net(seed=2).state_dict())
    partial = {name: state[name] for name in ("0.weight", "1.running_var")} | {
        "9.weight": np.ones(3)
    }
    with pytest.raises(
        fn.errors.StateDictError, match=r"missing \['0.bias'.*unexpected \['9.weight'"
    ):
        model.load_state_dict(partial)
    before = bits(model)
    assert before == bits(net())
    model.load_state_dict(partial, strict=False)
    changed = {name for name, value in bits(model).items() if value != before[name]}
    assert changed == {"0.weight"}  # the running variances are ones in both
    model.load_state_dict(state)
    assert bits(model) == bits(net(seed=2))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("3.weight", np.ones((5, 2)), r"state_dict\['3.weight'\] has shape \(5, 2\), .*\(2, 5\)"),
        ("3.bias", 1.0, r"has shape \(\), expected \(2,\)"),
        ("3.bias", [np.nan, 1.0], "holds NaN or infinity"),
        ("1.running_var", [np.inf] * 5, "holds NaN or infinity"),
        ("3.bias", ["a", "b"], "has dtype <U1; expected numbers"),
        ("3.bias", [[1.0], [1.0, 2.0]], "is not a rectangular array"),
        ("3.wait", np.ones((2, 5)), r"unexpected \['3.wait'\]"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(name, value, message):
    model = net()
    model.forward(X)
    before, version = bits(model), model.version
    with pytest.raises(fn.errors.StateDictError, match=message):
        model.load_state_dict(dict(net(seed=2).state_dict()) | {name: value})
    assert bits(model) == before and model.version == version
    model.backward(Y)  # the pending one is still good


@pytest.mark.parametrize(
    ("name", "value"), [("1.num_batches_tracked", np.nan), ("3.bias", [1e300, 0])]
)
def test_values_that_the_dtype_cannot_hold_are_refused(name, value):
    model = net(dtype="float32")
    with pytest.raises(fn.errors.StateDictError, match="holds NaN or infinity"):
        model.load_state_dict({name: value}, strict=False)


def test_a_seed_draws_the_same_on_every_backend_and_in_every_dtype():
    single, double = ([net(b, dtype=d) for b in BACKENDS] for d in ("float32", "float64"))
    assert len({str(bits(model)) for model in single}) == 1
    assert len({str(bits(model)) for model in double}) == 1
    for name, value in double[0].state_dict().items():
        given = single[0].state_dict()[name]
        np.testing.assert_array_equal(given, value.astype(given.dtype))
    assert bits(net(seed=2)) != bits(net())
    unseeded = [net(seed=None) for _ in range(2)]
    assert bits(unseeded[0]) != bits(unseeded[1])
    assert bits(unseeded[0]) == bits(net(seed=unseeded[0].seed))


def test_reset_parameters_draws_again_and_clears():
    model = net()
    model.value_and_grad(fn.MSELoss(), X, Y)
    fn.SGD(1.0).step(model)
    model.reset_parameters()
    assert bits(model) == bits(net())
    assert not any(grad.any() for grad in model.grads.values())
    model.reset_parameters(seed=2)
    assert bits(model) == bits(net(seed=2))


def test_addresses_never_move(backend):
    model = net(backend)
    held = [*model.parameters(), *model.grads.values(), model[1].running_mean]
    for change in CHANGES.values():
        change(model.train())
    model.forward(np.resize(X, (500, 3)))
    now = [*model.parameters(), *model.grads.values(), model[1].running_mean]
    assert [a.ctypes.data for a in now] == [a.ctypes.data for a in held]


def test_layers_used_before_keep_their_values():
    layer, other = fn.Linear(3, 2), fn.BatchNorm1d(2)
    expected = other.forward(layer.forward(X[:8]))
    kept = layer.weight.copy(), other.running_mean.copy()
    model = fn.Sequential(layer, other, dtype="float64", seed=1)
    np.testing.assert_array_equal(model[0].weight, kept[0])
    np.testing.assert_array_equal(model[1].running_mean, kept[1])
    np.testing.assert_allclose(model.forward(X[:8]), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (fn.Linear(3, 2), "in_features"),
        (fn.Linear(3, 2), "weight"),
        (fn.Linear(3, 2, bias=False), "bias"),
        (fn.BatchNorm1d(3), "eps"),
        (fn.BatchNorm1d(3), "running_mean"),
        (fn.Dropout(0.2), "p"),
        (fn.LeakyReLU(), "negative_slope"),
    ],
)
def test_hyperparameters_and_values_cannot_be_assigned(layer, name):
    before = repr(layer), getattr(layer, name)
    with pytest.raises(AttributeError, match=f"{type(layer).__name__}: {name} cannot be assigned"):
        setattr(layer, name, 0.1)
    assert repr(layer) == before[0] and np.all(getattr(layer, name) == before[1])


def test_views_cannot_be_made_writable():
    model = net()
    for view in (model[0].weight, model[1].running_mean, *model.grads.values()):
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True


def test_a_negative_variance_is_refused():
    layer = fn.BatchNorm1d(2)
    with pytest.raises(fn.errors.StateDictError, match=r"'running_var'.* below 0"):
        layer.load_state_dict({"running_var": [1.0, -1e-9]}, strict=False)
    np.testing.assert_array_equal(layer.running_var, 1)


def test_a_state_that_is_no_mapping_is_refused():
    with pytest.raises(fn.errors.StateDictError, match="state_dict is None; expected a mapping"):
        net().load_state_dict(None)


def test_lerp_moves_all_parameters_part_of_the_way(backend):
    one, two = (
        fn.Sequential(fn.Linear(3, 5), fn.BatchNorm1d(5), fn.PReLU(), backend=backend, seed=seed)
        for seed in (1, 2)
    )
    two.train().forward(X)
    before, there = one.state_dict(), two.state_dict()
    outputs = one.predict(X)
    one.lerp(two, 0.25)
    after = one.state_dict()
    for name, value in before.items():
        if name in one.named_parameters():
            np.testing.assert_allclose(after[name], value + 0.25 * (there[name] - value), rtol=1e-6)
        else:
            np.testing.assert_array_equal(after[name], value)
        np.testing.assert_array_equal(two.state_dict()[name], there[name])
    assert (one.predict(X) != outputs).any()  # what was derived is computed anew
    one.lerp(two, 1)
    one.lerp(two, 0)
    np.testing.assert_allclose(one.state_dict()["0.weight"], there["0.weight"], rtol=1e-6)


@pytest.mark.parametrize("other", [fn.Linear(3, 1), fn.Sequential(fn.Linear(1, 3)), None, "0"])
def test_lerp_refuses_other_parameters(other):
    model = fn.Sequential(fn.Linear(3, 1), seed=0)
    before = model.state_dict()
    with pytest.raises(HyperparameterError, match=r"^other "):
        model.lerp(other, 0.5)
    with pytest.raises(HyperparameterError, match=r"float64 of shapes .* float32 of shapes"):
        model.lerp(fn.Sequential(fn.Linear(3, 1), dtype="float64"), 0.5)
    with pytest.raises(HyperparameterError, match=r"^weight is 1\.5"):
        model.lerp(copy.deepcopy(model), 1.5)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
