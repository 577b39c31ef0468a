"""Plans of graphs in which tensors are shared, and of models at the edges, on every backend."""

from __future__ import annotations

import gradcheck
import numpy as np
import pytest

import fastnet as fn
from fastnet import random
from fastnet.backends import registry
from fastnet.backends.base import Backend
from fastnet.backends.executor import Executor
from fastnet.backends.reference import PythonRunner
from fastnet.init import Zeros
from fastnet.model.runtime import Ending
from fastnet.op import KERNELS, ROWS
from fastnet.optim.gradients import clip_value
from fastnet.parameter import Parameter
from fastnet.plan.compiler import compile_plan
from fastnet.plan.graph import Graph, Structure, Tensor
from fastnet.plan.instructions import update_pass
from fastnet.plan.segments import Storage


def op(name):
    return KERNELS[f"{name}_forward"].op


class Joining(Backend):
    """A backend that leaves one op, which it has no kernel for, to the reference kernels."""

    def __init__(self, backend, joint):
        self.backend, self.names = backend, [kernel.name for kernel in joint.kernels.values()]
        self.python = PythonRunner()

    def _parts(self, program):
        for i, kernel in enumerate(program["kernel"]):
            yield program[i : i + 1], list(KERNELS)[kernel] in self.names

    def prepare(self, program):
        for part, python in self._parts(program):
            if not python:
                self.backend.prepare(part)

    def run(self, program, context):
        for part, python in self._parts(program):
            (self.python if python else self.backend).run(part, context)


def normal(seed, shape):
    return gradcheck.normal(np.random.default_rng(seed), shape)


class Net:
    """A compiled graph: `build(graph, x, w, b)` returns its output; w, b are parameters (4, 4), (4,)."""

    def __init__(self, build, backend, rows=5):
        self.w = Parameter("w", (4, 4), Zeros(), value=normal(0, (4, 4)))
        self.b = Parameter("b", (4,), Zeros(), value=normal(1, (4,)))
        self.storage = Storage([self.w, self.b], "float64")
        self.graph, x = Graph(), Tensor((ROWS, 4), segment="x")
        output = build(self.graph, x, self.w, self.b)
        self.plan = compile_plan(Structure(self.graph, x, output), self.storage, rows)
        self.executor = Executor(self.plan, self.storage, backend)

    def check(self, x, u):
        """dL/dx and the parameters' gradients against central differences, L = Σ u·y."""
        self.storage.segments["grads"].fill(0)
        self.executor.forward(x)
        self.executor.backward(u)
        dx = self.executor.input_gradient(len(x)).copy()
        grads = {"x": dx, "w": self.w.grad, "b": self.b.grad}
        for name, array in {"x": x, "w": self.w.value, "b": self.b.value}.items():
            for i in range(array.size):
                kept, at = array.flat[i], []
                for sign in (1, -1):
                    array.flat[i] = kept + sign * 1e-5
                    at.append(float((self.executor.forward(x) * u).sum()))
                array.flat[i] = kept
                numeric = (at[0] - at[1]) / 2e-5
                assert grads[name].flat[i] == pytest.approx(numeric, rel=1e-7, abs=1e-8), (name, i)


def diamond(product):
    """x feeds a linear and the last product; h feeds tanh, sigmoid and twice one product."""

    def build(g, x, w, b):
        h = g.apply(op("linear"), x=x, w=w, b=b)
        t = g.apply(op("tanh"), x=h)
        s = g.apply(op("sigmoid"), x=h)
        squared = g.apply(product, a=h, b=h)
        gated = g.apply(product, a=t, b=s)
        return g.apply(product, a=g.apply(product, a=squared, b=gated), b=x)

    return build


def chain_with_skips(product):
    """Activations that could run in place, each of whose inputs is used again later."""

    def build(g, x, w, b):
        h = g.apply(op("linear"), x=x, w=w, b=b)
        for name in ("tanh", "sigmoid", "relu"):
            y = g.apply(op(name), x=h)
            h = g.apply(product, a=y, b=h)
        return g.apply(op("leaky_relu"), x=h, negative_slope=0.3)

    return build


@pytest.mark.parametrize("shape", [diamond, chain_with_skips])
def test_gradients_add_where_a_tensor_is_used_twice(backend, product, shape):
    net = Net(shape(product), Joining(registry.get(backend), product))
    net.check(normal(2, (5, 4)), normal(3, (5, 4)))
    net.check(normal(4, (2, 4)), normal(5, (2, 4)))
    assert (net.plan.backward["kernel"] == list(KERNELS).index("add_to_forward")).any()


def test_gradients_of_a_shared_parameter_add(backend):
    def build(g, x, w, b):
        h = g.apply(op("tanh"), x=g.apply(op("linear"), x=x, w=w, b=b))
        return g.apply(op("linear"), x=h, w=w, b=b)

    Net(build, registry.get(backend)).check(normal(2, (5, 4)), normal(3, (5, 4)))


def test_what_leads_nowhere_has_no_backward(backend):
    def build(g, x, w, b):
        h = g.apply(op("linear"), x=x, w=w, b=b)
        g.apply(op("tanh"), x=h)
        return g.apply(op("sigmoid"), x=h)

    net = Net(build, registry.get(backend))
    net.check(normal(2, (5, 4)), normal(3, (5, 4)))
    assert (len(net.plan.forward), len(net.plan.backward)) == (3, 2)


def addresses(program, name):
    """Where the tensors of a kernel's only instruction lie, by argument name."""
    (record,) = program[program["kernel"] == list(KERNELS).index(name)]
    spots = zip(record["segment"].tolist(), record["offset"].tolist(), strict=True)
    return dict(zip(KERNELS[name].tensors, spots, strict=False))


def plan_of(*layers, loss=None):
    model = fn.Sequential(*layers, dtype="float64", backend="reference")
    modes = (True,) * len(model.layers)
    ending = loss and Ending(loss, labels=False)
    return model._runtime.executor(model.input_shape or (4,), 8, modes, ending).plan


def test_an_activation_runs_in_place_where_its_input_is_not_needed_again():
    for name, layer in [("relu", fn.ReLU()), ("tanh", fn.Tanh()), ("sigmoid", fn.Sigmoid())]:
        plan = plan_of(fn.Linear(4, 4), layer, fn.Linear(4, 4))
        forward = addresses(plan.forward, f"{name}_forward")
        backward = addresses(plan.backward, f"{name}_vjp")
        assert forward["y"] == forward["x"], name
        assert backward["dx"] == backward["dy"], name


def test_an_activation_keeps_its_input_where_the_vjp_needs_it():
    plan = plan_of(fn.Linear(4, 4), fn.LeakyReLU(), fn.Linear(4, 4))
    forward = addresses(plan.forward, "leaky_relu_forward")
    assert forward["y"] != forward["x"]
    assert addresses(plan.backward, "leaky_relu_vjp")["x"] == forward["x"]
    plan = plan_of(fn.Linear(4, 4), fn.BatchNorm1d(4), fn.ReLU(), fn.Linear(4, 4))
    saved = addresses(plan.backward, "batchnorm_vjp")["x"]
    assert saved not in {v for k, v in addresses(plan.forward, "relu_forward").items()}


def test_the_callers_rows_are_never_written():
    """The first activation may not run in place on x."""
    plan = plan_of(fn.ReLU(), fn.Linear(4, 4))
    forward = addresses(plan.forward, "relu_forward")
    assert forward["y"] != forward["x"]


def test_training_needs_no_gradient_of_its_input():
    plan = plan_of(fn.Tanh(), fn.Linear(4, 4), fn.Dropout(0.5), loss=fn.MSELoss())
    names = [list(KERNELS)[k] for k in plan.step["kernel"] if k >= 0]
    assert names[-3:] == ["mse_vjp", "dropout_vjp", "linear_vjp"]
    assert addresses(plan.step, "linear_vjp")["dx"][0] == -1
    assert plan.dx is None


def test_a_bigger_batch_recompiles_the_workspace_alone(backend):
    layers = fn.Linear(4, 6), fn.BatchNorm1d(6), fn.Tanh(), fn.Linear(6, 3)
    model = fn.Sequential(*layers, dtype="float64", backend=backend, seed=0)
    x, dy = normal(0, (40, 4)), normal(1, (40, 3))

    def segments():
        return {name: block.ctypes.data for name, block in model.bind().segments.items()}

    def run(rows):
        model.zero_grad()
        y = model.forward(x[:rows])
        return y, model.backward(dy[:rows]), {n: g.copy() for n, g in model.grads.items()}

    before, views = segments(), model.named_parameters()
    first = run(5)
    run(40)
    assert segments() == before
    for name, value in model.named_parameters().items():
        assert np.shares_memory(value, views[name])
    again = run(5)
    np.testing.assert_array_equal(again[0], first[0])
    np.testing.assert_array_equal(again[1], first[1])
    for name, grad in again[2].items():
        np.testing.assert_array_equal(grad, first[2][name])


def test_a_model_without_parameters(backend):
    model = fn.Sequential(fn.Tanh(), fn.Sigmoid(), dtype="float64", backend=backend)
    x = normal(0, (3, 4))
    y = 1 / (1 + np.exp(-np.tanh(x)))
    np.testing.assert_allclose(model.forward(x), y, rtol=1e-15)
    dx = model.backward(np.ones((3, 4)))
    np.testing.assert_allclose(dx, y * (1 - y) * (1 - np.tanh(x) ** 2), rtol=1e-14)
    assert model.parameters() == []
    assert model.grads == {}
    for optimizer in (fn.SGD(), fn.SGD(momentum=0.9), fn.Adam()):
        assert model.value_and_grad(fn.MSELoss(), x, y) == pytest.approx(0, abs=1e-30)
        optimizer.step(model)


def test_a_model_that_is_the_identity(backend):
    model = fn.Sequential(fn.Dropout(0.0), dtype="float64", backend=backend)
    x, dy = normal(0, (3, 4)), normal(1, (3, 4))
    kept = x.copy()
    for y in (model.forward(x), model.predict(x), model.predict(x, batch_size=2)):
        np.testing.assert_array_equal(y, x)
        assert not np.shares_memory(y, x)
    model.forward(x)
    np.testing.assert_array_equal(model.backward(dy), dy)
    assert model.value_and_grad(fn.MSELoss(), x, dy) == pytest.approx(((x - dy) ** 2).mean())
    np.testing.assert_array_equal(x, kept)


class Tied(fn.Layer):
    """tanh(x·w)·w: one parameter, used twice."""

    def __init__(self, n):
        super().__init__(n=n)
        self._declare("weight", (n, n), init=fn.init.FanInUniform(), fan_in=n)

    def emit(self, g, x):
        w = self._parameters["weight"]
        h = g.apply(op("tanh"), x=g.apply(op("linear"), x=x, w=w, b=None))
        return g.apply(op("linear"), x=h, w=w, b=None)


@pytest.mark.parametrize("accumulate", [False, True])
def test_gradients_of_a_parameter_used_twice_add(backend, accumulate):
    model = fn.Sequential(Tied(3), dtype="float64", backend=backend, seed=0)
    x, y, loss = normal(0, (5, 3)), normal(1, (5, 3)), fn.MSELoss()
    loss.forward(model.forward(x), y)
    model.backward(loss.backward())  # adds to zero, so that overwriting cannot go wrong
    expected = model.grads["0.weight"].copy()
    model.value_and_grad(loss, x, y, accumulate=accumulate)
    found = model.grads["0.weight"] - expected * accumulate
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_a_pass_draws_from_no_stream_of_a_layers():
    places = {"g": ("grads", 0)}
    streams = {
        int(update_pass(clip_value, np.dtype("f4"), places, [8], row)["stream"][0])
        for row in range(4)
    }
    assert len(streams) == 4
    kinds = random.DROPOUT, random.INIT, random.SHUFFLE, random.NOISE
    assert streams.isdisjoint(random.stream_of(kind, i) for kind in kinds for i in range(1000))


def adding(g, x, w, b):
    """x + linear(x), then the same twice added and multiplied with itself."""
    h = g.apply(op("add"), a=g.apply(op("linear"), x=x, w=w, b=b), b=x)
    h = g.apply(op("tanh"), x=g.apply(op("add"), a=h, b=h))
    return g.apply(op("multiply"), a=h, b=h)


def fanning(g, x, w, b):
    """Sums that hand their gradient to tensors which get more of it later, in either order."""
    h = g.apply(op("tanh"), x=x)
    for first in (True, False):
        y = g.apply(op("linear"), x=h, w=w, b=b)
        t = g.apply(op("sigmoid"), x=h)
        y = g.apply(op("add"), **({"a": y, "b": h} if first else {"a": h, "b": y}))
        h = g.apply(op("add"), a=g.apply(op("multiply"), a=t, b=y), b=y)
    return g.apply(op("add"), a=h, b=h)


@pytest.mark.parametrize("shape", [adding, fanning])
def test_gradients_that_several_tensors_share(backend, shape):
    net = Net(shape, registry.get(backend))
    net.check(normal(2, (5, 4)), normal(3, (5, 4)))
    net.check(normal(4, (2, 4)), normal(5, (2, 4)))


def test_a_sums_backward_copies_nothing():
    plan = plan_of(fn.Residual(fn.Linear(4, 4), fn.Tanh(), fn.Linear(4, 4)), fn.Linear(4, 1))
    kernels = [list(KERNELS)[k] for k in plan.backward["kernel"]]
    assert kernels == ["linear_vjp", "linear_vjp", "tanh_vjp", "linear_vjp", "add_to_forward"]
    step = plan_of(fn.Residual(fn.Linear(4, 4)), fn.Linear(4, 1), loss=fn.MSELoss()).step
    names = [list(KERNELS)[k] for k in step["kernel"] if k >= 0]
    assert "add_to_forward" not in names  # nobody wants dL/dx
    forward = addresses(plan.forward, "add_forward")
    assert forward["y"] == forward["a"] != forward["b"]


def test_an_output_never_lies_over_an_input_that_is_read_twice():
    def build(g, x, w, b):
        return g.apply(op("multiply"), a=(h := g.apply(op("tanh"), x=x)), b=h)

    forward = addresses(Net(build, registry.get("reference")).plan.forward, "multiply_forward")
    assert forward["a"] == forward["b"] != forward["y"]


class SharedWeight(fn.layers.Layer):
    """The same weight twice, with a bias of its own the second time or the first."""

    def __init__(self, first):
        super().__init__(first=first)
        self._declare("weight", (3, 3), init=fn.init.Normal(0.0, 1.0), transposed=True)
        self._declare("bias", (3,), init=fn.init.Normal(0.0, 1.0))

    def emit(self, g, x):
        w, b = self._parameters["weight"], self._parameters["bias"]
        x = g.apply(op("linear"), x=x, w=w, b=b if self.first else None)
        return g.apply(op("linear"), x=x, w=w, b=None if self.first else b)


@pytest.mark.parametrize("first", [False, True])
def test_a_gradient_that_nobody_has_written_is_not_added_to(backend, first):
    """A VJP of which one parameter has a gradient already, and another has none."""
    made = fn.Sequential(SharedWeight(first), dtype="float64", backend=backend, seed=1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(7, 3)), rng.normal(size=(7, 3))
    trainer = fn.Trainer(made, fn.MSELoss(), fn.SGD(lr=0.0), seed=0)
    found = []
    for _ in range(3):
        trainer.fit(x, y, 1, 7, shuffle=False, verbose=0)
        found.append({name: g.copy() for name, g in made.grads.items()})
    value = made.state_dict()
    for name in value:
        numeric = np.zeros(value[name].shape)
        for i in np.ndindex(numeric.shape):
            ends = []
            for h in (1e-6, -1e-6):
                moved = {n: v.copy() for n, v in value.items()}
                moved[name][i] += h
                made.load_state_dict(moved)
                ends.append(fn.MSELoss().forward(made.predict(x), y))
            numeric[i] = (ends[0] - ends[1]) / 2e-6
        made.load_state_dict(value)
        for gradients in found:
            np.testing.assert_allclose(gradients[name], numeric, atol=1e-7)
