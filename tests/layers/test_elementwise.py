"""fn.elementwise: a function of one element as a layer, on every backend, in files, copies and threads."""

from __future__ import annotations

import copy
import math
import os
import pickle

import child
import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import executor, registry
from fastnet.errors import BackendUnavailable, FormulaError, HyperparameterError
from fastnet.formulas import formula, horner, maximum, minimum, sigmoid, tanh, where
from fastnet.op import GUESTS, KERNELS

pytestmark = pytest.mark.slow_on("cuda")  # tests/layers/test_custom.py has one for the simulator
RATE = 0.25
COEFFICIENTS = (0.1, -0.5, 1.0)


@formula
def squared(x):
    return x * x


@fn.elementwise
def cube(x):
    """The cube."""
    return squared(x) * x


@fn.elementwise
def swish(x, beta=1.0):
    return x * sigmoid(beta * x)


@fn.elementwise
def bent(z, slope=0.2, top=1.5):
    return where(z > 0, minimum(z, top), slope * np.expm1(np.minimum(z, 0)))


@fn.elementwise
def wavy(x):
    t = tanh(x)
    return horner(COEFFICIENTS, t) + RATE * np.exp(-np.abs(x)) / math.pi


LAYERS = [cube, swish, bent, wavy, lambda: swish(beta=-2.0), lambda: bent(0.5, top=0.3)]


def data(dtype, rows=37, columns=5):
    random = np.random.default_rng(0)
    return random.normal(scale=2, size=(rows, columns)).astype(dtype)


def net(make, dtype, backend):
    layers = fn.Linear(5, 19), make(), fn.Linear(19, 5), make()
    return fn.Sequential(*layers, seed=3, dtype=dtype, backend=backend)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", LAYERS)
def test_every_backend_agrees_with_the_reference(make, dtype, backend):
    x = data(dtype)
    close = {"rtol": 1e-12, "atol": 1e-13} if dtype == "float64" else {"rtol": 2e-4, "atol": 2e-5}
    model, reference = (net(make, dtype, name) for name in (backend, "reference"))
    np.testing.assert_allclose(model.predict(x), reference.predict(x), **close)
    losses = [m.value_and_grad(fn.MSELoss(), x, x) for m in (model, reference)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name, grad in model.grads.items():
        np.testing.assert_allclose(grad, reference.grads[name], **close)


@pytest.mark.parametrize("make", LAYERS)
def test_gradients_equal_central_differences(make, backend):
    model, x, h = fn.Sequential(make(), dtype="float64", backend=backend), data("float64"), 1e-6
    x = x[(np.abs(x[..., None] - [0, 0.3, 1.5]) > 1e-3).all(axis=(1, 2))]  # away from kinks
    model.forward(x)
    got = model.backward(np.ones_like(x))
    want = (model.predict(x + h) - model.predict(x - h)) / (2 * h)
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


def test_it_trains_as_the_built_in_layer_does(backend):
    x = data("float64", 50)

    def trained(layer):
        layers = fn.Linear(5, 7), layer, fn.Linear(7, 2)
        model = fn.Sequential(*layers, seed=0, dtype="float64", backend=backend)
        trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=0)
        trainer.fit(x, x[:, :2], epochs=4, batch_size=16, verbose=0)
        return model.predict(x)

    np.testing.assert_allclose(trained(swish()), trained(fn.SiLU()), rtol=1e-9)


def test_nan_passes_through_and_kinks_are_pytorch_s(backend):
    @fn.elementwise
    def leaky(x, slope=0.25):
        return where(x > 0, x, slope * x)

    @fn.elementwise
    def clamp(x):
        return minimum(maximum(x, -1), 1)

    x = np.array([[0.0, -0.0, np.nan, 1.0, -1.0]])
    for layer, slopes in ((leaky, [0.25, 0.25, 1, 0.25]), (clamp, [1, 1, 1, 1])):
        assert np.isnan(layer().forward(x)[0, 2])
        layers = fn.Linear(1, 2), fn.Linear(2, 1), layer()
        model = fn.Sequential(*layers, dtype="float64", backend=backend)
        with model.edit() as p:
            p["0.weight"][...], p["1.weight"][...] = 1e200, [1, -1]
        assert np.isnan(model.forward(np.full((1, 1), 1e200)))  # ∞ − ∞
        model = fn.Sequential(layer(), dtype="float64", backend=backend)
        model.forward(np.nan_to_num(x))
        dx = model.backward(np.ones((1, 5)))
        np.testing.assert_array_equal(dx[0, [0, 1, 3, 4]], slopes)


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch):
    if not fn.backends()["c"].available or not fn.backends()["numba"].available:
        pytest.skip("no backend c, or no Numba")
    monkeypatch.setattr(executor, "WORK_TO_SHARE", 1)
    x, found = data("float32", 700, 33), []
    for threads in (1, 2, 3):
        with fn.threads(threads):
            layers = fn.Linear(33, 129), swish(beta=1.7), wavy(), fn.Linear(129, 33)
            model = fn.Sequential(*layers, seed=0, backend="c")
            fn.Trainer(model, fn.MSELoss(), seed=0).fit(x, x, epochs=2, batch_size=350, verbose=0)
            found.append(model.predict(x))
    assert all((one == found[0]).all() for one in found)


def test_without_numba_the_c_backend_calls_numpy(monkeypatch):
    if not fn.backends()["c"].available:
        pytest.skip("no backend c")
    x = data("float64", 40)

    def trained(backend):
        model = net(bent, "float64", backend)
        fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=0).fit(
            x, x, epochs=2, batch_size=16, verbose=0
        )
        return model

    known = registry.get

    def get(name):
        if name == "numba":
            raise BackendUnavailable("none")
        return known(name)

    monkeypatch.setattr(registry, "get", get)
    model, reference = trained("c"), trained("reference")
    model.forward(x)
    assert not model._runtime.executor((5,), 40, (True,) * 4).whole_epochs
    reference.forward(x)
    for found in ("predict", "backward"):
        got, want = (getattr(m, found)(x) for m in (model, reference))
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)


def test_ops_of_users_stay_out_of_the_package_s_table():
    assert not set(KERNELS) & set(GUESTS)
    assert cube.op.kernels["forward"].name in GUESTS
    for name in ("numba", "c"):
        if fn.backends()[name].available:
            fn.Sequential(cube(), backend=name).predict(np.ones((1, 2)))
            assert not set(registry.get(name).kernels()) & set(GUESTS)


def test_functions_of_one_name_are_layers_of_their_own():
    def make(power):
        if power == 2:

            @fn.elementwise
            def act(x):
                return x * x
        else:

            @fn.elementwise
            def act(x):
                return x * x * x

        return act

    two, three, again = make(2), make(3), make(2)
    assert two.op is again.op and two.op is not three.op and two is not again
    x = np.array([[3.0]])
    model = fn.Sequential(two(), three(), dtype="float64")
    assert model.predict(x)[0, 0] == 3.0**6


def test_constants_have_the_values_of_the_definition(monkeypatch):
    slope = 3.0

    @fn.elementwise
    def line(x):
        return slope * x + RATE

    slope = 5.0
    monkeypatch.setitem(globals(), "RATE", 100.0)
    assert line().forward(np.ones((1, 1)))[0, 0] == 3.25


def test_a_function_of_numbers_alone_is_a_constant(backend):
    @fn.elementwise
    def half(x, a=0.5):
        return a + 0

    model = fn.Sequential(fn.Linear(2, 2), half(), dtype="float64", backend=backend)
    x = np.ones((3, 2))
    np.testing.assert_array_equal(model.forward(x), np.full((3, 2), 0.5))
    np.testing.assert_array_equal(model.backward(x), np.zeros((3, 2)))


def test_repr_config_copies_and_pickles():
    layer = bent(0.3)
    assert repr(layer) == "bent(slope=0.3)" and repr(cube()) == "cube()"
    assert layer.config() == {"slope": 0.3, "top": 1.5} and layer.slope == 0.3
    assert bent.from_config(layer.config()).slope == 0.3
    assert (cube.__name__, cube.__module__, cube.__doc__) == ("cube", __name__, "The cube.")
    x = data("float64")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        np.testing.assert_array_equal(other.forward(x), layer.forward(x))
    model = net(swish, "float64", "auto")
    same = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(same.predict(x), model.predict(x))


def test_files_know_the_layer_by_its_name(tmp_path):
    model, path, x = net(lambda: swish(1.5), "float64", "auto"), tmp_path / "net", data("float64")
    model.save(path)
    with pytest.raises(fn.errors.FileError, match=r"type is 'swish'; .* fastnet\.register"):
        fn.load(path)
    again = fn.load(path, layers=[swish])
    assert again[1].beta == 1.5
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


REFUSED = {
    "a power": ("return x ** 2", r"'x \*\* 2' is not part of the language"),
    "math": ("return math.sin(x)", "calls what is not a formula"),
    "a loop": ("for _ in range(3):\n        x = x + x\n    return x", "is neither an assignment"),
    "a choice in Python": ("return x if x > 0 else 0 * x", "is not part of the language"),
    "a name twice": ("y = x\n    y = y * y\n    return y", "assigns a name twice"),
    "an unknown name": ("return x + unknown", "'unknown' is not a number"),
    "a method": ("return x.sum()", r"'x.sum\(\)' is a function of numbers alone"),
    "coefficients of no tuple": ("return horner(x, x)", "needs a tuple of numbers"),
    "coefficients without a name": ("return horner((1, 2), x)", "needs the name of a tuple"),
    "several values": ("return x, x * x", "returns 2 values; expected one"),
    "a comparison": ("return x > 0", "is no number"),
    "nothing": ("x + 1", "does not return a value"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_formula_is_told_with_its_line(what, tmp_path):
    body, message = REFUSED[what]
    path = tmp_path / "act.py"
    path.write_text(
        f"import math\nimport fastnet as fn\nfrom fastnet.formulas import horner\n\n\n"
        f"@fn.elementwise\ndef act(x):\n    {body}\n"
    )
    with pytest.raises(FormulaError, match=message) as caught:
        exec(compile(path.read_text(), str(path), "exec"), {"__name__": "act"})
    if what != "several values":
        line = 9 if what == "a name twice" else 8
        assert f"(act.py, line {line})" in str(caught.value)
        assert "a formula is straight-line code of" in str(caught.value)


def keyword_only(x, *, a):
    return x * a


def many(x, a, b, c, d, e):
    return x


def default(x=1):
    return x


def taken(x, training):
    return x


def record(x, n):
    return x


def text_default(x, a="1"):
    return x * a


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x, "expected a function that `def` defines"),
        (np.exp, "expected a function that `def` defines"),
        (3, "function is 3; expected a function"),
        (keyword_only, "expected an element and numbers"),
        (lambda: None, "expected a function that `def`"),
        (many, "takes 5 numbers; expected at most 4"),
        (default, "has a default for the element x"),
        (taken, "'training', a name that layers use"),
        (record, "'n', a name that layers use"),
        (text_default, "the default of a is '1'"),
        (eval("lambda: 0", {}), "expected a function"),
    ],
)
def test_what_is_no_function_of_an_element_is_refused(function, message):
    with pytest.raises(HyperparameterError, match=message):
        fn.elementwise(function)


def test_a_function_without_source_is_told():
    names = {}
    exec("def act(x):\n    return x", names)
    with pytest.raises(HyperparameterError, match="act has no source that can be read"):
        fn.elementwise(names["act"])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: swish("a"), HyperparameterError, "beta is 'a'"),
        (lambda: swish(np.nan), HyperparameterError, "beta is"),
        (lambda: swish(1, 2), HyperparameterError, "argument 2 of swish is 2"),
        (lambda: swish(gamma=2), TypeError, "swish: got an unexpected keyword argument 'gamma'"),
        (lambda: swish.from_config({"gamma": 2}), HyperparameterError, "no argument 'gamma'"),
    ],
)
def test_bad_numbers_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


PROGRAM = """
import json, runpy, sys, time
sys.argv[:] = [sys.argv[1]]
print(json.dumps(runpy.run_path(sys.argv[0])["found"]))
"""


def test_compiled_code_is_kept_on_disk(tmp_path):
    if not fn.backends()["numba"].available or "NUMBA_DISABLE_JIT" in os.environ:
        pytest.skip("no Numba")
    program = tmp_path / "program.py"
    program.write_text(
        "import fastnet as fn, numpy as np\n"
        "from fastnet.backends.numba import natives\n"
        "@fn.elementwise\n"
        "def act(x, a=2.0):\n"
        "    return a * x * x\n"
        "y = fn.Sequential(act(), backend='numba').predict(np.full((1, 2), 3.0))\n"
        "known = fn.backends.__globals__['get']('numba')._natives._known\n"
        "found = [y.tolist(), sorted(type(k).__name__ for n, k in known.items() if 'act' in n)]\n"
    )
    kept = {"NUMBA_CACHE_DIR": str(tmp_path / "kept")}
    first, second = (child.run(PROGRAM, program, **kept) for _ in range(2))
    assert first == [[[18, 18]], ["CFunc"]] and second == [[[18, 18]], ["Loaded"]]
