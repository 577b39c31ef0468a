"""Quantised nets: the arithmetic, what it costs, C files and ONNX files with equal integers."""

from __future__ import annotations

import ctypes
import gzip
import itertools
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path

import c_files
import numpy as np
import pytest

import fastnet as fn
from fastnet import errors
from fastnet.int8.layer import _fixed
from fastnet.int8.ranges import Codes, codes_of

RNG = np.random.default_rng(0)
DATA = Path(os.environ.get("FASTNET_DATA", Path(__file__).parents[3] / "shared" / "data"))


@pytest.fixture(autouse=True)
def _own_numbers():
    """Each test draws the same numbers, whichever others run before it."""
    global RNG
    RNG = np.random.default_rng(0)


def net(activation, *, scaler=True, norm=True, widths=(12, 33, 17, 5), seed=0, x=None):
    """A net of random parameters, and rows."""
    x = RNG.normal(size=(300, widths[0])).astype(np.float32) * 3 + 1 if x is None else x
    layers = [fn.preprocess.StandardScaler().fit(x)] if scaler else []
    for inputs, outputs in itertools.pairwise(widths[:-1]):
        layers.append(fn.Linear(inputs, outputs))
        layers += [fn.BatchNorm1d(outputs)] if norm else []
        layers.append(activation())
    model = fn.Sequential(*layers, fn.Linear(*widths[-2:]), seed=seed)
    for _ in range(3):
        model.forward(x)
    return model.eval(), x


def by_loops(layer, row):
    """The codes of a layer for one row of codes, by Python's integers."""
    found = []
    for o in range(layer.w.shape[1]):
        total = int(layer.bias[o]) + sum(
            int(q) * int(w) for q, w in zip(row, layer.w[:, o], strict=True)
        )
        product, shift = total * int(layer.multiplier[o]), int(layer.shift[o])
        q = min(max(((product + 2 ** (shift - 1)) >> shift) + layer.before.zero, 0), 255)
        found.append(q if layer.table is None else int(layer.table[q]))
    return found


ACTIVATIONS = [fn.ReLU, fn.Tanh, fn.SiLU, fn.LeakyReLU, fn.ReLU6, fn.Sigmoid, fn.GELU]


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("method", ["percentile", "minmax", "mse"])
def test_outputs_are_near_the_models(activation, method):
    model, x = net(activation)
    made = fn.quantize(model, x, method)
    wanted, found = model.predict(x), made.predict(x)
    # Each of three layers rounds to 256 codes.
    assert np.sqrt(np.mean(np.square(found - wanted))) < 0.03 * np.sqrt(np.mean(np.square(wanted)))
    assert found.dtype == np.float32 and made.predict_codes(x).dtype == np.uint8
    assert made.nbytes == sum(layer.nbytes for layer in made.layers)


@pytest.mark.parametrize("activation", [fn.ReLU, fn.Tanh])
def test_layers_are_the_integers_that_their_text_says(activation):
    model, x = net(activation)
    made = fn.quantize(model, x)
    codes = made.quantize_inputs(x[:20])
    for layer in made.layers:
        assert np.abs(layer.w).max() == 127
        after = layer(codes)
        assert after.tolist() == [by_loops(layer, row) for row in codes]
        codes = after
    assert np.array_equal(codes, made.predict_codes(x[:20]))


@pytest.mark.parametrize("number", [1e-18, 3e-10, 0.0007, 0.25, 0.5, 0.999999, 1.0, 1.5, 77.0, 1e8])
def test_fixed_point_numbers(number):
    multiplier, shift = _fixed(number)
    assert 0 <= multiplier < 2**31 and 1 <= shift <= 62
    assert multiplier / 2**shift == pytest.approx(number, rel=2**-30, abs=2**-32)


def test_numbers_without_a_fixed_point():
    assert _fixed(1e-30) == (0, 1)
    assert _fixed(2.0**40) == (2**31 - 1, 1)
    assert _fixed(1 - 2**-40) == (2**30, 30)


def test_ranges():
    x = np.concatenate([RNG.normal(size=100_000), [1000.0]])
    assert codes_of(x, "minmax", 99.0).high == pytest.approx(1000, rel=1e-2)
    assert codes_of(x, "percentile", 99.0).high == pytest.approx(2.33, rel=0.05)
    far, near = (codes_of(x, method, 99.0) for method in ("minmax", "mse"))
    errors_of = [np.square(c.numbers(c.quantize(x)) - x).mean() for c in (far, near)]
    assert errors_of[1] <= errors_of[0]
    positive = codes_of(np.array([2.0, 5.0]), "minmax", 99.0)
    assert (positive.zero, positive.low) == (0, 0.0)  # a zero point is a code, so 0 has one
    assert codes_of(np.zeros(3), "mse", 99.0) == Codes(1.0, 0)
    assert codes_of(np.array([-4.0, -1.0]), "minmax", 99.0).zero == 255


def test_numbers_have_the_nearest_codes():
    codes = Codes.of(-1.0, 3.0)
    x = np.linspace(-1, 3, 1001)
    assert np.abs(codes.numbers(codes.quantize(x)) - x).max() <= codes.scale * 0.51
    assert codes.quantize(np.array([np.nan, -np.inf, np.inf])).tolist() == [0, 0, 255]
    assert codes.saturated(np.array([-9.0, 0.0, 1.0, 9.0])) == 0.5


def test_a_net_of_classes_keeps_its_accuracy():
    (x, y), (x_test, y_test) = fn.datasets.digits()
    model = fn.Sequential(
        fn.preprocess.MinMaxScaler().fit(x),
        fn.Linear(64, 64),
        fn.BatchNorm1d(64),
        fn.ReLU(),
        fn.Linear(64, 10),
        seed=0,
    )
    names = np.array([f"digit {i}" for i in range(10)])
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(1e-3), seed=0)
    trainer.fit(x, names[y], 30, 32, verbose=0)
    made = fn.quantize(model, x)
    report = made.report(x_test, names[y_test], model=model)
    assert report.score > report.model_score - 0.003 and report.agreement > 0.99
    assert set(made.predict_classes(x_test)) <= set(names)
    assert report.nbytes < 0.32 * report.model_bytes
    text = str(report)
    assert all(layer.label in text for layer in report.layers) and "score" in text
    assert [layer.outputs for layer in report.layers] == [64, 10]
    assert all(0 <= layer.saturated < 0.001 and layer.noise < -25 for layer in report.layers)


def test_a_report_of_numbers():
    x = RNG.normal(size=(400, 3)).astype(np.float32)
    y = np.sin(x[:, :1]) + x[:, 1:2]
    model = fn.Sequential(fn.Linear(3, 32), fn.Tanh(), fn.Linear(32, 1), seed=0)
    fn.Trainer(model, fn.MSELoss(), fn.Adam(0.01), seed=0).fit(x, y, 60, 32, verbose=0)
    report = fn.quantize(model, x).report(x, y, model=model)
    assert report.model_score > 0.99 and report.score > report.model_score - 0.01
    assert report.agreement is None


def test_factors_of_columns_become_part_of_products():
    x = RNG.normal(size=(200, 4)).astype(np.float32)
    layers = [
        fn.Linear(4, 9),
        fn.Scale(9),
        fn.Tanh(),
        fn.BatchNorm1d(9),
        fn.Bias(9),
        fn.Linear(9, 3),
    ]
    model = fn.Sequential(*layers, fn.Scale(3), fn.Softmax(), seed=0)
    state = {n: v + RNG.uniform(0.1, 0.5, v.shape) for n, v in model.state_dict().items() if v.ndim}
    model.load_state_dict({**model.state_dict(), **state})
    made = fn.quantize(model.eval(), x)
    logits = np.log(model.predict(x))  # but for a number for each row
    off = made.predict(x) - logits
    assert np.abs(off - off.mean(axis=1, keepdims=True)).max() < 0.1
    assert len(made.layers) == 2


def test_activations_before_the_first_product(tmp_path):
    x = RNG.normal(size=(500, 6)).astype(np.float32) * 20
    layers = [
        fn.preprocess.RobustScaler().fit(x),
        fn.Scale(6),
        fn.NTKLinear(6, 32),
        fn.SELU(),
        fn.NTKLinear(32, 3),
        fn.Scale(3),
    ]
    model = fn.Sequential(*layers, seed=0)
    made = fn.quantize(model, x)
    wanted = model.predict(x)
    error = np.sqrt(np.mean(np.square(made.predict(x) - wanted)))
    assert error < 0.03 * np.sqrt(np.mean(np.square(wanted)))
    if shutil.which("gcc") is not None:
        source, _ = made.export_c(tmp_path / "net.c")
        given, codes = Library(source, "-O2", *c_files.STRICT).predict(x)
        assert np.array_equal(given, made.quantize_inputs(x))
        assert np.array_equal(codes, made.predict_codes(x))
    runtime = pytest.importorskip("onnxruntime")
    made.export_onnx(tmp_path / "net.onnx")
    (codes,) = runtime.InferenceSession(str(tmp_path / "net.onnx")).run(["codes"], {"input": x})
    assert np.mean(codes == made.predict_codes(x)) >= 0.999


def test_a_table_s_net():
    pytest.importorskip("sklearn")
    from sklearn.datasets import load_wine

    from fastnet.sklearn import TabularClassifier

    x, y = load_wine(return_X_y=True)
    table = TabularClassifier("small", random_state=0, epochs=60).fit(x, y).table_model()
    made = fn.quantize(table.network(), x)
    assert np.mean(made.predict(x).argmax(axis=1) == table.predict(x)) > 0.97


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        ([fn.Linear(4, 4), fn.Residual(fn.Linear(4, 4)), fn.Linear(4, 2)], "add|Residual|Linear"),
        ([fn.Linear(4, 4), fn.LayerNorm(4), fn.Linear(4, 2)], "LayerNorm"),
        ([fn.RBF(4, 6), fn.Linear(7, 2)], "RBF"),
        ([fn.Linear(4, 4), fn.PReLU(), fn.Linear(4, 2)], "PReLU"),
        ([fn.Tanh(), fn.LayerNorm(4), fn.Linear(4, 2)], "LayerNorm"),
        ([fn.Linear(4, 4), fn.Softmax(), fn.Linear(4, 2)], "Linear"),
    ],
)
def test_what_has_no_form_of_integers(layers, name):
    model = fn.Sequential(*layers)
    with pytest.raises(errors.UsageError, match=name):
        fn.quantize(model, np.ones((3, 4), np.float32))


def test_a_softmax_that_is_left_out():
    x = RNG.normal(size=(300, 3)).astype(np.float32)
    y = np.exp(x @ RNG.normal(size=(3, 3)))
    y /= y.sum(axis=1, keepdims=True)
    for loss in (fn.MSELoss(), fn.BCELoss()):
        model = fn.Sequential(fn.Linear(3, 8), fn.ReLU(), fn.Linear(8, 3), fn.Softmax(), seed=0)
        target = y if isinstance(loss, fn.MSELoss) else (y > 0.4).astype(np.float32)
        fn.Trainer(model, loss, fn.Adam(0.01), seed=0).fit(x, target, 20, 32, verbose=0)
        if isinstance(loss, fn.BCELoss):
            with pytest.raises(errors.UsageError, match=r"softmax.*BCEWithLogitsLoss"):
                fn.quantize(model, x)
            continue
        report = fn.quantize(model, x).report(x, y, model=model)
        assert abs(report.score - report.model_score) < 0.01


def test_columns_keep_their_names():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(RNG.normal(size=(60, 3)), columns=list("abc"))
    model = fn.Sequential(fn.Linear(3, 1), seed=0)
    fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1), seed=0).fit(
        frame, frame[["a"]].to_numpy(), 2, 20, verbose=0
    )
    made = fn.quantize(model, frame)
    assert made.predict(frame).shape == (60, 1)
    with pytest.raises(errors.DataError, match="order"):
        made.predict(frame[["c", "b", "a"]])
    assert made.predict(np.empty((0, 3))).shape == (0, 1)


def test_wrong_arguments(tmp_path):
    model, x = net(fn.ReLU)
    for call, text in [
        (lambda: fn.quantize(model, x).export_c(tmp_path / 'a"b.c'), "path"),
        (lambda: fn.quantize(model, x).predict([[1.0], [1.0, 2.0]]), "X"),
        (lambda: fn.quantize(model, x, "max"), "method"),
        (lambda: fn.quantize(model, x, percentile=20), "percentile"),
        (lambda: fn.quantize(model, x[:0]), "rows"),
        (lambda: fn.quantize(model, np.full((2, 12), np.nan, np.float32)), "finite"),
        (lambda: fn.quantize("net", x), "model"),
        (lambda: fn.quantize(model, x).report(x), "report"),
        (lambda: fn.quantize(model, x).predict(x[:, :3]), "X"),
        (lambda: fn.quantize(model, x).predict(["a"]), "X"),
        (lambda: fn.quantize(model, x).export_c(tmp_path / "a.txt"), "path"),
        (lambda: fn.quantize(model, x).export_c(tmp_path / "a.c", name="7"), "name"),
        (lambda: fn.quantize(model, x).export_onnx(tmp_path), "path"),
        (lambda: fn.quantize(model, x).export_onnx(tmp_path / "a.onnx", opset=9), "opset"),
    ]:
        with pytest.raises((errors.HyperparameterError, errors.DataError), match=text):
            call()
    with pytest.raises(errors.UsageError, match="predict_classes"):
        fn.quantize(model, x).predict_classes(x)
    assert not list(tmp_path.iterdir())


# C.

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


class Library:
    """An exported net as a shared library."""

    def __init__(self, source, *flags, compiler="gcc"):
        target = source.with_name(f"{source.stem}-{abs(hash(flags)) % 10**6}.so")
        c_files.run(compiler, *flags, "-shared", "-fPIC", source, "-o", target)
        self.library, self.header = ctypes.CDLL(str(target)), source.with_suffix(".h")
        self.name = source.stem
        self.inputs, self.outputs, self.scratch = (
            c_files.macro(self.header, f"{self.name.upper()}_{what}")
            for what in ("INPUTS", "OUTPUTS", "SCRATCH_BYTES")
        )

    def call(self, what, *arrays):
        function = getattr(self.library, f"{self.name}_{what}")
        return function(*(a.ctypes.data_as(ctypes.c_void_p) for a in arrays))

    def predict(self, x):
        """Codes of inputs, and codes of outputs."""
        given = np.empty((len(x), self.inputs), np.uint8)
        codes = np.full((len(x), self.outputs + 8), 77, np.uint8)
        scratch = np.full(self.scratch + 8, 77, np.uint8)
        for row, q, y in zip(np.ascontiguousarray(x, np.float32), given, codes, strict=True):
            self.call("quantize", row, q)
            self.call("predict", q, y, scratch)
        assert (codes[:, self.outputs :] == 77).all() and (scratch[self.scratch :] == 77).all()
        assert self.call("selftest", scratch) == 0
        return given, np.ascontiguousarray(codes[:, : self.outputs])


@needs_gcc
@pytest.mark.parametrize(
    "flags",
    [("-O0",), ("-O2", "-std=c99"), ("-O3", "-march=native"), ("-O2", "-fsanitize=undefined")],
    ids=" ".join,
)
@pytest.mark.parametrize("activation", [fn.ReLU, fn.SiLU])
@pytest.mark.parametrize("widths", [(12, 33, 17, 5), (5, 3), (7, 64, 2)], ids=str)
def test_c_has_equal_integers(tmp_path, activation, widths, flags):
    model, x = net(activation, widths=widths)
    made = fn.quantize(model, x)
    source, _ = made.export_c(tmp_path / "small.c", name="small")
    library = Library(source, *c_files.STRICT, *flags, "-fno-sanitize-recover=all")
    x[0, :4] = np.nan, np.inf, -np.inf, 1e30
    given, codes = library.predict(x * 1.5)
    assert np.array_equal(given, made.quantize_inputs(x * 1.5))
    assert np.array_equal(codes, made.predict_codes(x * 1.5))
    y = np.empty(library.outputs, np.float32)
    library.call("dequantize", codes[0], y)
    assert np.array_equal(y, made.predict(x[:1] * 1.5)[0])
    assert library.call("argmax", codes[3]) == codes[3].argmax()


@needs_gcc
def test_c_compiles_as_cpp_and_without_floating_point(tmp_path):
    model, x = net(fn.Tanh)
    source, header = fn.quantize(model, x).export_c(tmp_path / "net.c")
    cpp = shutil.which("g++")
    if cpp is not None:
        c_files.run(cpp, "-x", "c++", *c_files.STRICT, "-c", source, "-o", tmp_path / "a.o")
    lean = tmp_path / "lean.o"
    c_files.run("gcc", "-O2", "-DNET_NO_FLOAT", "-DNET_NO_SELFTEST", "-c", source, "-o", lean)
    undefined = c_files.run("nm", "-u", lean).stdout.split()
    assert not undefined
    assert not re.search(
        "float",
        subprocess.run(
            ["gcc", "-E", "-P", "-DNET_NO_FLOAT", "-DNET_NO_SELFTEST", source],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split("net_product")[1],
    )
    sizes = c_files.run("size", lean).stdout.splitlines()[1].split()
    flash = c_files.macro(header, "NET_FLASH_BYTES")
    assert flash < int(sizes[0]) < flash + 2500  # constants, and the code


@needs_gcc
def test_the_self_test_tells_of_other_numbers(tmp_path):
    model, x = net(fn.ReLU, widths=(4, 3))
    source, _ = fn.quantize(model, x).export_c(tmp_path / "net.c")
    text = source.read_text("utf-8")
    scratch = np.zeros(1, np.uint8)
    assert Library(source, "-O1").call("selftest", scratch) == 0
    source.write_text(text.replace("_0_b[3] = {", "_0_b[3] = {9999999 + ", 1), "utf-8")
    assert Library(source, "-O2").call("selftest", scratch) > 0


CROSS = {"aarch64": "aarch64-linux-gnu-gcc", "arm": "arm-linux-gnueabihf-gcc"}


@pytest.mark.parametrize("processor", CROSS)
def test_c_on_another_processor(tmp_path, processor):
    emulator, compiler = shutil.which(f"qemu-{processor}"), shutil.which(CROSS[processor])
    if emulator is None or compiler is None:
        pytest.skip("needs a cross compiler and an emulator")
    model, x = net(fn.SiLU)
    made = fn.quantize(model, x)
    source, _ = made.export_c(tmp_path / "net.c")
    main = tmp_path / "main.c"
    main.write_text(
        '#include <stdio.h>\n#include "net.h"\n'
        "int main(void) {\n"
        "    static uint8_t scratch[NET_SCRATCH_BYTES], q[NET_INPUTS], y[NET_OUTPUTS];\n"
        "    float x[NET_INPUTS];\n"
        "    if (net_selftest(scratch))\n        return 1;\n"
        "    while (fread(x, sizeof x, 1, stdin) == 1) {\n"
        "        net_quantize(x, q);\n        net_predict(q, y, scratch);\n"
        "        fwrite(y, 1, sizeof y, stdout);\n    }\n    return 0;\n}\n"
    )
    program = tmp_path / "main"
    c_files.run(compiler, "-O2", "-static", main, source, "-o", program)
    done = subprocess.run([emulator, program], input=x.tobytes(), capture_output=True, check=True)
    assert done.stdout == made.predict_codes(x).tobytes()


# ONNX.


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("scaler", [True, False])
def test_onnx_has_the_same_integers(tmp_path, activation, scaler):
    runtime = pytest.importorskip("onnxruntime")
    model, x = net(activation, scaler=scaler, widths=(12, 64, 40, 9))
    x = RNG.normal(size=(4000, 12)).astype(np.float32) * 3 + 1
    x[0, :3] = np.inf, -np.inf, 1e30
    made = fn.quantize(model, x[1:1000])
    path = tmp_path / "net.onnx"
    made.export_onnx(path)
    options = runtime.SessionOptions()
    session = runtime.InferenceSession(path.read_bytes(), options, ["CPUExecutionProvider"])
    output, codes = session.run(["output", "codes"], {"input": x})
    off = np.abs(codes.astype(int) - made.predict_codes(x))
    # A code between layers that differs by 1 may move an output by more than its own rounding.
    assert off.max() <= 2 and np.mean(off == 0) >= 0.999
    assert np.abs(output - made.predict(x)).max() <= made.output_scale * (off.max() + 0.01)


def test_onnx_checker(tmp_path):
    onnx = pytest.importorskip("onnx")
    model, x = net(fn.Tanh)
    made = fn.quantize(model, x)
    for opset in (17, 21):
        made.export_onnx(tmp_path / "net.onnx", opset=opset)
        onnx.checker.check_model(str(tmp_path / "net.onnx"), full_check=True)


def images(name):
    """Images of MNIST in [0, 1], float32 (n, 784), and labels."""
    folder = DATA / "mnist"
    if not folder.is_dir():
        pytest.skip(f"no MNIST at {folder}; FASTNET_DATA names the folder that holds mnist/")
    parts = []
    for what in ("images-idx3", "labels-idx1"):
        with gzip.open(next(folder.glob(f"*{name}*{what}*"))) as file:
            data = file.read()
        count = data[3]
        shape = struct.unpack(f">{count}I", data[4 : 4 + 4 * count])
        parts.append(np.frombuffer(data, np.uint8, offset=4 + 4 * count).reshape(shape))
    return parts[0].reshape(-1, 784).astype(np.float32) / 255, parts[1]


@needs_gcc
def test_mnist(tmp_path):
    (x, y), (x_test, y_test) = images("train"), images("10k")
    layers = fn.Linear(784, 128), fn.ReLU(), fn.Linear(128, 10)
    model = fn.Sequential(*layers, seed=0)
    fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(1e-3), seed=0).fit(x, y, 5, 64, verbose=0)
    made = fn.quantize(model, x[:2000])
    report = made.report(x_test, y_test, model=model)
    assert report.model_score > 0.97
    assert report.score > report.model_score - 0.003
    assert report.nbytes <= 0.27 * report.model_bytes
    source, _ = made.export_c(tmp_path / "mnist.c", name="mnist")
    _, codes = Library(source, "-O3", "-march=native").predict(x_test)
    assert np.array_equal(codes, made.predict_codes(x_test))
    runtime = pytest.importorskip("onnxruntime")
    made.export_onnx(tmp_path / "mnist.onnx")
    session = runtime.InferenceSession(str(tmp_path / "mnist.onnx"))
    (theirs,) = session.run(["codes"], {"input": x_test})
    off = np.abs(theirs.astype(int) - codes)
    assert off.max() <= 1 and np.mean(off == 0) >= 0.999
    print(report, np.mean(off == 0))
