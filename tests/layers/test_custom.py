"""Layers, losses and ops of one's own: where they run, and what is said where something is missing."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

import fastnet as fn
from fastnet import configured
from fastnet.errors import BackendUnavailable
from fastnet.formulas import exp
from fastnet.formulas.language import Real, each
from fastnet.layers.base import Layer
from fastnet.layers.pointwise import Elementwise

# A simulator takes seconds for each step; `test_layers_of_ones_own_run_everywhere` is what it runs always.
pytestmark = pytest.mark.slow_on("cuda")
X = np.arange(6.0).reshape(3, 2)
MAKES = ("numba", "cuda", "reference", "c")  # backends that make kernels of formulas


@pytest.fixture
def cube(passing_ops):
    """A layer whose op is a formula that was written after the backends were first used."""
    for name in MAKES:
        if fn.backends()[name].available:
            fn.Sequential(fn.Tanh(), backend=name).predict(X)

    class cubed(Elementwise):  # noqa: N801
        @each
        def forward(x: Real) -> Real:
            return x * x * x

        @each
        def vjp(dy: Real, x: Real) -> Real:
            return dy * (3 * (x * x))

    class Cube(Layer):
        def emit(self, g, x):
            return g.apply(cubed, x=x)

    return Cube()


@pytest.mark.contract
@pytest.mark.parametrize("name", MAKES)
def test_a_formula_of_ones_own_runs(name, cube):
    if not fn.backends()[name].available:
        pytest.skip(f"no backend {name}")
    model = fn.Sequential(cube, dtype="float64", backend=name)
    np.testing.assert_array_equal(model.forward(X), X**3)
    np.testing.assert_array_equal(model.backward(X), 3 * X**3)
    trainer = fn.Trainer(model, fn.MSELoss())
    assert trainer.evaluate(X, X**3)["loss"] == 0


def test_the_c_backend_names_those_that_have_what_draws(passing_ops):
    if not fn.backends()["c"].available:
        pytest.skip("no backend c")

    class jittered(Elementwise):  # noqa: N801
        @each
        def forward(x: Real, tail: Real) -> Real:
            return x + tail

        @each
        def vjp(dy: Real) -> Real:
            return dy

    class Jitter(Layer):
        def emit(self, g, x):
            return g.apply(jittered, x=x)

    model = fn.Sequential(Jitter(), backend="c")
    message = r"'c' has no kernel jittered_forward; use model\.to\('numba'\), .*\('reference'\)"
    with pytest.raises(BackendUnavailable, match=message):
        model.predict(X)


class Bare:
    class Layer(fn.layers.Layer):
        pass

    class Loss(fn.Loss):
        pass

    class Draw(fn.init.Initializer):
        pass

    class Curve(fn.schedules.Schedule):
        pass


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Bare.Layer().forward(X), r"^Layer defines no emit\(self, g, x\): it "),
        (lambda: fn.Sequential(Bare.Layer()).predict(X), r"^Layer defines no emit\("),
        (
            lambda: Bare.Loss().forward(X, X),
            r"^Loss defines no target\(self, y, shape, name\): it ",
        ),
        (
            lambda: fn.Linear(2, 2, weight_init=Bare.Draw()).forward(X),
            r"^Draw defines no sample\(self, shape, fan_in, fan_out, draw\): it ",
        ),
        (lambda: Bare.Curve()(3), r"^Curve defines no values\(self, t\): it "),
    ],
)
def test_what_a_class_of_ones_own_lacks_is_told(call, message):
    with pytest.raises(NotImplementedError, match=message):
        call()


class Gain(fn.CustomLayer):
    """y = scale·x by columns, in NumPy."""

    def __init__(self, features):
        super().__init__(features=features)
        self.parameter("scale", (features,), fn.init.Constant(0.8))

    def forward(self, x, saved):
        saved.x = x
        return x * self.scale

    def backward(self, dy, saved):
        return dy * self.scale, {"scale": (dy * saved.x).sum(axis=0)}


class Bend(fn.CustomLayer):
    """tanh in NumPy."""

    def forward(self, x, saved):
        saved.y = np.tanh(x)
        return saved.y

    def backward(self, dy, saved):
        return dy * (1 - saved.y**2)


class Pairs(fn.CustomLayer):
    """Sums of neighbours: another width."""

    def output_shape(self, shape):
        return (shape[0] // 2,)

    def forward(self, x, saved):
        return x[:, ::2] + x[:, 1::2]

    def backward(self, dy, saved):
        return np.repeat(dy, 2, axis=1)


def rows(count=24, columns=4):
    return np.random.default_rng(0).normal(size=(count, columns))


def own(backend, dtype="float64", bend=Bend):
    layers = Gain(4), fn.Linear(4, 6), bend(), fn.Linear(6, 6), bend(), Pairs(), fn.Linear(3, 2)
    return fn.Sequential(*layers, seed=1, dtype=dtype, backend=backend)


def fitted(model, epochs=3, optimizer=None, **options):
    x = rows()
    trainer = fn.Trainer(model, fn.MSELoss(), optimizer or fn.Adam(0.01), seed=0)
    trainer.fit(x, x[:, :2], epochs=epochs, batch_size=7, verbose=0, **options)
    return trainer


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [fn.Adam(0.01), fn.SGD(0.05), fn.SGD(0.05, momentum=0.5)])
def test_layers_in_numpy_train_as_built_in_ones(backend, dtype, optimizer):
    close = 1e-9 if dtype == "float64" else 1e-4
    mine, theirs = (own(backend, dtype, bend) for bend in (Bend, fn.Tanh))
    for model in (mine, theirs):
        fitted(model, optimizer=copy.deepcopy(optimizer))
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[name], value, rtol=close, atol=close)
    assert not np.allclose(mine.state_dict()["0.scale"], 0.8)


def test_gradients_of_layers_in_numpy_equal_central_differences(backend):
    model, x, h = own(backend), rows(5), 1e-6
    loss, y = fn.MSELoss(), rows(5)[:, :2]
    model.value_and_grad(loss, x, y)
    grads = {name: grad.copy() for name, grad in model.grads.items()}
    for name, grad in grads.items():
        for i in (0, grad.size - 1):
            found = []
            for step in (h, -h):
                with model.edit() as p:
                    p[name].flat[i] += step
                found.append(model.value_and_grad(loss, x, y))
                with model.edit() as p:
                    p[name].flat[i] -= step
            want = (found[0] - found[1]) / (2 * h)
            assert grad.flat[i] == pytest.approx(want, rel=1e-5, abs=1e-8), name
    model.forward(x)
    dx = model.backward(np.ones((5, 2)))
    up, down = (model.predict(x + step) for step in (h, -h))
    np.testing.assert_allclose(
        dx.sum(axis=1), ((up - down) / (2 * h)).sum(axis=1), rtol=1e-5, atol=1e-8
    )


def test_all_ways_to_run_a_layer_in_numpy_agree(backend):
    mine, theirs = own(backend), own(backend, bend=fn.Tanh)
    x, y, loss = rows(), rows()[:, :2], fn.MSELoss()

    def close(of):
        np.testing.assert_allclose(of(mine), of(theirs), rtol=1e-10, atol=1e-12)

    close(lambda m: m.predict(x))
    close(lambda m: m.predict(x, batch_size=5))
    close(lambda m: m.forward(x))
    close(lambda m: m.backward(y))
    close(lambda m: m.value_and_grad(loss, x, y, accumulate=True))
    close(lambda m: m.grads["0.scale"])
    close(lambda m: fn.Trainer(m, loss).evaluate(x, y)["loss"])
    close(lambda m: fn.Trainer(m, lambda o, t: (np.mean((o - t) ** 2), 2 * (o - t) / o.size), seed=0)
          .fit(x, y, epochs=2, batch_size=9, verbose=0).history["loss"])  # fmt: skip
    close(lambda m: fn.Trainer(m, loss, seed=0).fit(
        x, y, epochs=2, batch_size=9, validation_data=(x, y), accumulation_steps=2, verbose=0
    ).history["val_loss"])  # fmt: skip
    mine.freeze("0.*"), theirs.freeze("0.*")
    before = mine.state_dict()["0.scale"]
    close(lambda m: fitted(m).history.history["loss"])
    np.testing.assert_array_equal(mine.state_dict()["0.scale"], before)


def test_fit_many_trains_layers_in_numpy(backend):
    x, models = rows(), [own(backend), own(backend)]
    fn.fit_many(models, x, x[:, :2], losses=fn.MSELoss(), seeds=[0, 0], epochs=2, batch_size=7)
    alone = own(backend)
    fn.Trainer(alone, fn.MSELoss(), fn.Adam(), seed=0).fit(
        x, x[:, :2], epochs=2, batch_size=7, verbose=0
    )
    for model in models:
        np.testing.assert_array_equal(model.predict(x), alone.predict(x))


class Fails(fn.CustomLayer):
    """Raises in its n-th call of a method."""

    def __init__(self, method, after):
        super().__init__(method=method, after=after)
        self.calls = 0

    def count(self, method):
        self.calls += method == self.method
        if self.calls == self.after:
            raise OSError("pulled the plug")

    def forward(self, x, saved):
        self.count("forward")
        return x * 1

    def backward(self, dy, saved):
        self.count("backward")
        return dy * 1


@pytest.mark.parametrize("method", ["forward", "backward"])
@pytest.mark.parametrize("optimizer", [fn.Adam(0.01), fn.SGD(0.05)])
def test_an_error_in_step_k_leaves_the_steps_before_it(backend, method, optimizer):
    x = rows(28)

    def made(after):
        layers = fn.Linear(4, 5), fn.BatchNorm1d(5), Fails(method, after), fn.Linear(5, 2)
        model = fn.Sequential(*layers, seed=0, dtype="float64", backend=backend)
        return fn.Trainer(model, fn.MSELoss(), copy.deepcopy(optimizer), seed=0)

    failing, straight = made(3), made(-1)
    options = {"epochs": 1, "batch_size": 7, "verbose": 0, "shuffle": False}
    with pytest.raises(OSError, match="pulled the plug"):
        failing.fit(x, x[:, :2], **options)
    straight.fit(x[:14], x[:14, :2], **options)
    assert failing.step == 2
    for name, value in straight.model.state_dict().items():
        np.testing.assert_array_equal(failing.model.state_dict()[name], value, err_msg=name)


def test_an_error_in_backward_leaves_accumulated_gradients(backend):
    layers = fn.Linear(4, 5), Fails("backward", 2), fn.Linear(5, 2)
    model, x = fn.Sequential(*layers, seed=0, dtype="float64", backend=backend), rows(6)
    model.value_and_grad(fn.MSELoss(), x, x[:, :2])
    before = {name: grad.copy() for name, grad in model.grads.items()}
    with pytest.raises(OSError):
        model.value_and_grad(fn.MSELoss(), x, x[:, :2], accumulate=True)
    model[1].calls = 1
    model.forward(x)
    with pytest.raises(OSError):
        model.backward(x[:, :2])
    for name, grad in model.grads.items():
        np.testing.assert_array_equal(grad, before[name])


def test_predictions_of_other_threads_keep_what_a_forward_has_saved(backend):
    model, x = own(backend), rows()
    model.forward(x)
    want = model.backward(rows()[:, :2])
    model.forward(x)
    thread = threading.Thread(target=lambda: [model.predict(3 * x) for _ in range(3)])
    thread.start()
    thread.join()
    model.predict(2 * x)
    np.testing.assert_array_equal(model.backward(rows()[:, :2]), want)


class Noise(fn.CustomLayer):
    """x + noise in training; it keeps what it was told."""

    def forward(self, x, saved):
        vars(self).setdefault("modes", []).append(saved.training)
        saved.factor = 1.0
        return x + saved.rng.normal(size=x.shape) if saved.training else x

    def backward(self, dy, saved):
        return saved.factor * dy


def test_a_layer_in_numpy_knows_its_mode_and_draws_by_the_seeds(backend):
    x = rows()

    def trained(seed):
        layer = Noise()
        model = fn.Sequential(layer, fn.Linear(4, 2), seed=0, dtype="float64", backend=backend)
        trainer = fn.Trainer(model, fn.MSELoss(), seed=seed)
        trainer.fit(x, x[:, :2], epochs=2, batch_size=12, verbose=0)
        assert layer.modes == [True] * 4
        model.predict(x)
        model.eval().forward(x)
        assert layer.modes[4:] == [False, False]
        return model.state_dict()["1.weight"]

    np.testing.assert_array_equal(trained(1), trained(1))
    assert (trained(1) != trained(2)).all()


def test_two_uses_draw_other_numbers_and_one_call_the_same_again():
    tape = fn.Sequential(Noise(), Noise(), seed=0, dtype="float64", backend="reference")
    x = np.zeros((2, 3))
    first = tape.forward(x)
    again = fn.Sequential(Noise(), seed=0, dtype="float64", backend="reference").forward(x)
    assert not np.allclose(first, 2 * again)
    lone = Noise()
    lone._seed = 0
    np.testing.assert_array_equal(lone.forward(x), again)


def test_a_lone_layer_in_numpy_works_as_others_do():
    layer, x = Gain(4), rows(5)
    y = layer.forward(x)
    np.testing.assert_allclose(y, 0.8 * x)
    np.testing.assert_allclose(layer.backward(np.ones_like(x)), np.full(x.shape, 0.8))
    np.testing.assert_allclose(layer.grads["scale"], x.sum(axis=0))
    assert repr(layer) == "Gain(features=4)" or repr(layer) == "Gain(4)"
    assert layer.state_dict()["scale"].shape == (4,)


def test_files_resume_and_copies_of_layers_in_numpy(tmp_path, backend):
    model, x = own(backend), rows()
    trainer = fitted(model, epochs=2)
    path = tmp_path / "net"
    model.save(path)
    with pytest.raises(fn.errors.FileError, match=r"type is 'Gain'; .* fastnet\.register"):
        fn.load(path)
    again = fn.load(path, layers=[Gain, Bend, Pairs])
    np.testing.assert_allclose(again.predict(x), model.predict(x), rtol=1e-12)
    other = pickle.loads(pickle.dumps(copy.deepcopy(model)))
    np.testing.assert_array_equal(other.predict(x), model.predict(x))
    assert trainer.epoch == 2


@fn.elementwise
def swish(x, beta=1.0):
    return x / (1 + exp(-beta * x))


def test_a_run_with_layers_of_ones_own_resumes_to_the_bit(tmp_path, backend, monkeypatch):
    monkeypatch.setattr(configured, "_kinds", dict(configured._kinds))
    for kind in (Gain, Noise, swish):
        fn.register(kind)
    x = rows()

    def made():
        layers = Gain(4), fn.Linear(4, 6), swish(1.5), Noise(), fn.Linear(6, 2)
        model = fn.Sequential(*layers, seed=1, dtype="float64", backend=backend)
        return fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=0)

    options = {"batch_size": 7, "verbose": 0}
    straight, first = made(), made()
    straight.fit(x, x[:, :2], epochs=4, **options)
    first.fit(x, x[:, :2], epochs=2, **options)
    first.save(tmp_path / "trainer")
    second = fn.Trainer.load(tmp_path / "trainer")
    second.model.to(backend)
    second.fit(x, x[:, :2], epochs=2, **options)
    for name, value in straight.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], value, err_msg=name)


@pytest.mark.contract
@pytest.mark.parametrize("name", MAKES)
def test_layers_of_ones_own_run_everywhere(name):
    if not fn.backends()[name].available:
        pytest.skip(f"no backend {name}")
    found, x, loss = [], rows(4), fn.MSELoss()
    for backend in (name, "reference"):
        layers = Gain(4), fn.Linear(4, 3), Bend(), swish(1.5), fn.Linear(3, 2)
        model = fn.Sequential(*layers, seed=1, dtype="float64", backend=backend)
        results = [model.predict(x), model.forward(x), model.backward(x[:, :2])]
        results.append(model.value_and_grad(loss, x, x[:, :2], accumulate=True))
        results += [grad.copy() for grad in model.grads.values()]
        trainer = fn.Trainer(model, loss, fn.Adam(0.01), seed=0)
        trainer.fit(x, x[:, :2], epochs=2, batch_size=2, verbose=0)
        found.append(results + list(model.state_dict().values()))
    for got, want in zip(*found, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-11, atol=1e-13)


class Wrong:
    class Shape(Bend):
        def forward(self, x, saved):
            return x[:, :2]

    class Rows(Bend):
        def forward(self, x, saved):
            return x[:2]

    class Kind(Bend):
        def forward(self, x, saved):
            return np.array([["a"] * x.shape[1]] * len(x))

    class Nothing(Bend):
        def forward(self, x, saved):
            pass

    class Slope(Bend):
        def backward(self, dy, saved):
            return dy[:, :2]

    class NoSlope(Bend):
        def backward(self, dy, saved):
            pass

    class Unknown(Bend):
        def backward(self, dy, saved):
            return dy, {"scale": 1.0}

    class Missing(Gain):
        def __init__(self):
            super().__init__(5)

        def backward(self, dy, saved):
            return dy

    class Other(Gain):
        def __init__(self):
            super().__init__(5)

        def backward(self, dy, saved):
            return dy, {"scale": np.ones(3)}

    class Bare(fn.CustomLayer):
        pass


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (
            Wrong.Shape,
            fn.errors.ShapeError,
            r"forward returned an array of shape \(6, 2\) .*output_shape",
        ),
        (Wrong.Rows, fn.errors.ShapeError, r"expected the shape \(6, 5\)$"),
        (Wrong.Kind, fn.errors.DataError, "dtype <U1; expected an array of numbers"),
        (Wrong.Nothing, fn.errors.DataError, "forward returned None; expected an array"),
        (Wrong.Slope, fn.errors.ShapeError, r"backward returned an array of shape \(6, 2\)"),
        (Wrong.NoSlope, fn.errors.DataError, "backward returned None; expected"),
        (
            Wrong.Unknown,
            fn.errors.DataError,
            "a gradient of 'scale'; the layer has the parameters none",
        ),
        (Wrong.Missing, fn.errors.DataError, "no gradient of 'scale'; expected the pair"),
        (Wrong.Other, fn.errors.ShapeError, r"gradient of 'scale' is an array of shape \(3,\)"),
        (Wrong.Bare, NotImplementedError, r"Bare defines no forward\(self, x, saved\): it "),
    ],
)
def test_what_a_layer_in_numpy_returns_is_checked(kind, error, message, backend):
    model = fn.Sequential(fn.Linear(4, 5), kind(), seed=0, backend=backend)
    with pytest.raises(error, match=message) as caught:
        model.value_and_grad(fn.MSELoss(), rows(6), np.zeros((6, 5)))
    if error is not NotImplementedError:
        assert str(caught.value).startswith(f"layer 1 ({kind.__name__}): ")
    assert model.training_lock().acquire(blocking=False)


def declared(*arguments):
    layer = Bend()
    layer.parameter(*arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: declared("forward", (3,)), "name is 'forward', which Bend has already"),
        (lambda: declared("a b", (3,)), "name is 'a b'; expected a name"),
        (lambda: declared(3, (3,)), "name is 3; expected a name"),
        (lambda: declared("w", 3), r"shape is 3; expected integers, such as \(3, 4\)"),
        (lambda: declared("w", (0,)), "shape is 0"),
        (lambda: declared("w", (3,), 1.0), r"init is 1\.0; expected an initialiser"),
        (
            lambda: type("Short", (fn.CustomLayer,), {"forward": lambda self, x: x}),
            r"Short\.forward takes \(self, x\); expected \(self, x, saved\)",
        ),
    ],
)
def test_bad_declarations_are_refused(call, message):
    with pytest.raises(fn.errors.HyperparameterError, match=message):
        call()


def test_updates_interleaved_with_a_backward_happen_once():
    """The C backend updates so large a weight while it computes its gradient, and then Python is called."""
    if not fn.backends()["c"].available:
        pytest.skip("no backend c")
    x, found = np.random.default_rng(0).normal(size=(200, 16)).astype("f"), []
    for bend in (Bend, fn.Tanh):
        layers = fn.Linear(16, 520), bend(), fn.Linear(520, 270), fn.Linear(270, 2)
        model = fn.Sequential(*layers, seed=0, backend="c")
        trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=0)
        trainer.fit(x, x[:, :2], epochs=1, batch_size=100, verbose=0)
        found.append(model.state_dict())
    for name, value in found[1].items():
        np.testing.assert_allclose(found[0][name], value, atol=2e-3, err_msg=name)
