"""Models as C files: equal bits, warnings of compilers, sizes, refusals."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import c_files
import numpy as np
import pytest
import random_nets
from c_files import STRICT, Compiled, have, macro, run
from refusals import refused

import fastnet as fn
from fastnet.errors import HyperparameterError, ShapeError, UsageError
from fastnet.export.text import Library
from fastnet.formulas import exp, minimum, sigmoid, where
from fastnet.op import KERNELS

pytestmark = [
    pytest.mark.skipif(not have("gcc"), reason="no gcc"),
    pytest.mark.skipif(not fn.backends()["c"].available, reason="no C backend"),
]
NEEDED = {"fmaf", "fma", "sqrtf", "sqrt", "copysignf", "copysign", "memcpy", "memmove", "memset"}

# Ops that evaluation never runs, or that no graph of an export has: sparse rows, rounded products.
ONLY_IN_TRAINING = {
    "add_to", "batchnorm", "dropout", "scheduled_dropout", "alpha_dropout", "relu_dropout", "noisy_relu",
    "gaussian_noise", "move_image", "mirror_image", "contrast", "spread_labels", "mean_of_losses",
    "sparse_linear", "gaussian_slope", "bfloat16_linear", "bfloat16_pairs", "bfloat16_pairs_linear",
}  # fmt: skip

CLANG = pytest.mark.skipif(not have("clang"), reason="no clang")
CPP = pytest.mark.skipif(not have("g++"), reason="no g++")
WAYS = [
    pytest.param("gcc", ("-std=c99", "-O0"), id="gcc-c99-O0"),
    pytest.param("gcc", ("-std=c99", "-O3"), id="gcc-c99-O3"),
    # GCC fuses products and sums in its own dialects; the file keeps it from that.
    pytest.param("gcc", ("-std=gnu11", "-O2"), id="gcc-gnu11-O2"),
    pytest.param("g++", ("-x", "c++", "-std=c++11", "-O1"), marks=CPP, id="g++-O1"),
    pytest.param("clang", ("-std=c99", "-O2"), marks=CLANG, id="clang-c99-O2"),
    pytest.param("clang", ("-std=gnu11", "-O3"), marks=CLANG, id="clang-gnu11-O3"),
    pytest.param("clang++", ("-x", "c++", "-std=c++11", "-O1"), marks=CLANG, id="clang++-O1"),
]


def exported(model: Any, folder: Path, name: str = "net", **options: Any) -> Path:
    """The path of the model's C file."""
    return Path(model.export_c(folder / f"{name}.c", name, **options)[0])


def check(seed: int, folder: Path, *flags: str, compiler: str = "gcc", **options: Any) -> None:
    """A random model's C file predicts with the bits of the C backend."""
    dtype = "float64" if seed % 3 == 0 else "float32"
    model = random_nets.model(seed, backend="c", dtype=dtype)
    x = random_nets.inputs(seed).astype(dtype)
    path = exported(model, folder, f"net{seed}", rows=x[:3], input_shape=8, **options)
    also = [p for p in [path.with_name(f"net{seed}_weights.c")] if p.exists()]
    net = Compiled(path, *flags, c_files.FMA, *STRICT, compiler=compiler, also=also)
    want = model.predict(x).reshape(len(x), -1)
    np.testing.assert_array_equal(net.predict(x), want, err_msg=str(model))
    assert net.selftest() == 0


@pytest.mark.parametrize("group", range(6))
def test_random_models_keep_their_bits(group, tmp_path):
    for seed in range(group, 24, 6):
        check(seed, tmp_path, "-std=c99", "-O1")


@pytest.mark.parametrize(("compiler", "flags"), WAYS)
def test_bits_and_warnings_of_compilers(compiler, flags, tmp_path):
    for seed in (7, 33):
        weights = "separate" if seed == 33 else "inline"
        check(seed, tmp_path, *flags, compiler=compiler, weights=weights)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("compiler", "dialect"),
    [("gcc", "c99"), ("gcc", "gnu11"), ("g++", "c++11"), ("clang", "c99"), ("clang++", "c++11")],
)
@pytest.mark.parametrize("level", ["-O0", "-O1", "-O2", "-O3"])
def test_300_random_models(compiler, dialect, level, tmp_path):
    if not have(compiler):
        pytest.skip(f"no {compiler}")
    language = ("-x", "c++") if compiler.endswith("++") else ()
    for seed in range(300):
        flags = (*language, f"-std={dialect}", level)
        check(seed, tmp_path, *flags, compiler=compiler, weights=("inline", "separate")[seed % 2])
        for made in tmp_path.iterdir():
            made.unlink()


def test_kernels_are_those_of_predictions():
    library = Library.of_package(double=False)
    written = {name for name in library.found if name.endswith("_forward")}
    layers = {
        kernel.name: kernel
        for kernel in KERNELS.values()
        if kernel.phase == "forward" and not kernel.op.__module__.startswith("fastnet.losses")
    }
    formulas = {name for name, kernel in layers.items() if kernel.formula}
    training = {f"{name}_forward" for name in ONLY_IN_TRAINING}
    assert layers.keys() - written - formulas <= training
    losses = {"mse_forward", "softmax_nll_forward"}
    assert written - layers.keys() == losses and written & training == {"add_to_forward"}
    assert written & formulas == set()


@pytest.mark.slow
def test_random_models_call_every_kernel(tmp_path):
    library = Library.of_package(double=False)
    written = {name for name in library.found if name.endswith("_forward")}
    written -= {"mse_forward", "softmax_nll_forward", "add_to_forward"}  # of training
    for seed in range(300):
        path = exported(random_nets.model(seed), tmp_path, input_shape=8)
        text = path.read_text("utf-8")
        written -= {name for name in written if f" net_{name}(" in text}
    assert written == set()


def small(**options: Any) -> fn.Sequential:
    layers = fn.Linear(4, 16), fn.Tanh(), fn.Linear(16, 3), fn.Softmax()
    return fn.Sequential(*layers, seed=0, **options)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_another_dtype(dtype, tmp_path):
    other = {"float32": "float64", "float64": "float32"}[dtype]
    model = small(dtype=other)
    net = Compiled(exported(model, tmp_path, dtype=dtype), "-O1", c_files.FMA)
    x = np.random.default_rng(0).normal(size=(9, 4))
    assert net.dtype == dtype and net.selftest() == 0
    np.testing.assert_allclose(net.predict(x), model.predict(x), rtol=0, atol=3e-7)


@fn.elementwise
def bent(x: Any, rate: float = 0.5) -> Any:
    """An activation of a user's, with a kink and a function."""
    return where(x > 0, x * sigmoid(rate * x), exp(minimum(x, 0.0)) - 1.0)


def test_activations_of_users_go_by_themselves(tmp_path):
    model = fn.Sequential(fn.Linear(4, 20), bent(rate=1.5), fn.Linear(20, 3), bent(), seed=0)
    path = exported(model, tmp_path)
    net = Compiled(path, "-O1", "-std=c99", c_files.FMA, *STRICT)
    x = np.random.default_rng(0).normal(size=(50, 4)).astype("float32")
    np.testing.assert_allclose(net.predict(x), model.predict(x), rtol=1e-5, atol=1e-6)


def test_bounds_of_outputs(tmp_path):
    model = small()
    net = Compiled(exported(model, tmp_path, clamp=(0.3, 0.35)), "-O1", c_files.FMA)
    x = np.random.default_rng(0).normal(size=(99, 4)).astype("float32")
    low, high = np.float32(0.3), np.float32(0.35)
    want = model.predict(x).clip(low, high)
    assert len(np.unique(want)) > 2 and want.min() == low and want.max() == high
    np.testing.assert_array_equal(net.predict(x), want)


def test_without_fma_the_selftest_tells(tmp_path):
    path = exported(small(), tmp_path)
    net = Compiled(path, "-O2", "-DNET_NO_FMA")
    assert 0 < net.selftest() < 1e-6
    wrong = path.read_text("utf-8").replace("NET_ALIGNED = {", "NET_ALIGNED = {7 +", 1)
    assert wrong != path.read_text("utf-8")
    path.write_text(wrong, "utf-8")
    assert Compiled(path, "-O2", c_files.FMA).selftest() > 1e-3


@pytest.mark.parametrize("flags", [("-O0",), ("-O2",), ("-O2", "-DNET_NO_FMA")])
def test_symbols_of_others(flags, tmp_path):
    model = fn.Sequential(fn.Linear(8, 40), fn.LayerNorm(40), fn.GELU(), fn.Linear(40, 5), seed=0)
    path = exported(model, tmp_path)
    run("gcc", "-std=c99", *flags, "-c", path, "-o", tmp_path / "net.o")
    lines = run("nm", tmp_path / "net.o").stdout.splitlines()
    missing = {line.split()[-1] for line in lines if " U " in line}
    stated = set(re.findall(r"\w+", path.with_suffix(".h").read_text("utf-8")))
    assert missing <= NEEDED and missing <= stated
    public = {line.split()[-1] for line in lines if re.search(r" [TRDBC] ", line)}
    assert public == {"net_predict", "net_argmax", "net_selftest"}
    # Neither .data nor .bss: there is no state.
    assert not [line for line in lines if re.search(r" [dDbBC] ", line)]


@pytest.mark.skipif(not have("arm-none-eabi-gcc"), reason="no arm-none-eabi-gcc")
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0"])
def test_bytes_on_microcontrollers(core, tmp_path):
    layers = fn.Linear(8, 64), fn.ReLU(), fn.Linear(64, 64), fn.Tanh(), fn.Linear(64, 10)
    path = exported(fn.Sequential(*layers, fn.Softmax(), seed=0), tmp_path)
    main = tmp_path / "main.c"
    main.write_text(
        '#include "net.h"\n'
        "float s[NET_SCRATCH_BYTES / sizeof(float)], y[NET_OUTPUTS], x[NET_INPUTS];\n"
        "int main(void) {\n    net_predict(x, y, s);\n    return (int)net_argmax(y);\n}\n"
    )
    fpu = ["-mfpu=fpv4-sp-d16", "-mfloat-abi=hard"] if core == "cortex-m4" else []
    flags = [f"-mcpu={core}", "-mthumb", *fpu, "-Os", "-DNET_NO_SELFTEST", "-fdata-sections"]
    compiler = "arm-none-eabi-gcc"
    run(compiler, *flags, "-std=c99", *STRICT, "-c", path, "-o", tmp_path / "net.o")
    lines = run("arm-none-eabi-size", "-A", tmp_path / "net.o").stdout.splitlines()
    sizes = {line.split()[0]: int(line.split()[1]) for line in lines if re.match(r"\.\w", line)}
    constants = sum(size for name, size in sizes.items() if name.startswith(".rodata"))
    stated = macro(path.with_suffix(".h"), "NET_FLASH_BYTES")
    assert abs(constants - stated) <= 0.02 * stated
    assert sum(size for name, size in sizes.items() if name.startswith((".data", ".bss"))) == 0
    assert sum(size for name, size in sizes.items() if name.startswith(".text")) < 2048
    run(compiler, *flags, "-fstack-usage", "-c", path, "-o", tmp_path / "net.o")
    stacks = [line.split("\t")[1] for line in (tmp_path / "net.su").read_text().splitlines()]
    assert 0 < sum(map(int, stacks)) < 200
    linked = [*flags, "--specs=nosys.specs", "-Wl,--gc-sections", "-Wl,-w", main, path]
    run(compiler, *linked, "-o", tmp_path / "net.elf", "-lm")


def test_labels_and_probabilities(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4)).astype("float32")
    labels = np.array(['red /* "1" ??/', "grün", "blue"])[random.integers(3, size=60)]
    frame = {f"col*/ {i}??/": x[:, i] for i in range(4)}
    model = fn.Sequential(fn.Linear(4, 3), seed=0)
    pandas = pytest.importorskip("pandas")
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=0)
    trainer.fit(pandas.DataFrame(frame), labels, epochs=3, verbose=0)
    path = exported(model, tmp_path)
    main = tmp_path / "main.c"
    main.write_text(
        '#include "net.h"\n#include <stdio.h>\nint main(void) {\n'
        "    float s[NET_SCRATCH_BYTES / sizeof(float)], x[NET_INPUTS], y[NET_OUTPUTS];\n"
        '    while (scanf("%f %f %f %f", x, x + 1, x + 2, x + 3) == 4) {\n'
        "        net_predict(x, y, s);\n        const int k = net_class(y);\n"
        "        net_probabilities(y, y);\n"
        '        printf("%s\\t%.9g %.9g %.9g\\n", net_labels[k], y[0], y[1], y[2]);\n    }\n}\n'
    )
    run("gcc", "-std=c99", *STRICT, "-Wno-conversion", main, path, "-o", tmp_path / "main", "-lm")
    rows = "\n".join(" ".join(f"{v:.9g}" for v in row) for row in x)
    lines = run(tmp_path / "main", input=rows).stdout.splitlines()
    found = [line.split("\t") for line in lines]
    assert [label for label, _ in found] == list(model.predict_classes(frame_of(pandas, frame)))
    p = [[float(number) for number in numbers.split()] for _, numbers in found]
    want = model.predict_proba(frame_of(pandas, frame))
    np.testing.assert_allclose(p, want, rtol=0, atol=3e-7)


def frame_of(pandas: Any, columns: Any) -> Any:
    return pandas.DataFrame(columns)


@pytest.mark.parametrize(
    "loss", [fn.BCEWithLogitsLoss(), fn.BCELoss(), fn.NLLLoss(), fn.MultiMarginLoss()]
)
def test_links(loss, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    binary = "BCE" in type(loss).__name__
    layers = [fn.Linear(3, 1 if binary else 4)]
    layers += {"BCELoss": [fn.Sigmoid()], "NLLLoss": [fn.LogSoftmax()]}.get(type(loss).__name__, [])
    model = fn.Sequential(*layers, seed=1)
    y = (x[:, :1] > 0).astype("float32") if binary else np.arange(40) % 4
    fn.Trainer(model, loss, seed=0).fit(x, y, epochs=2, verbose=0)
    net = Compiled(exported(model, tmp_path), "-O1", c_files.FMA)
    out = net.predict(x)
    at = [np.ascontiguousarray(row).ctypes.data_as(c_files.POINTER) for row in out]
    found = [net.library.net_class(row) for row in at]
    assert found == model.predict_classes(x).tolist()
    if isinstance(loss, fn.MultiMarginLoss):
        assert "net_probabilities" not in path_text(tmp_path)
        return
    want = model.predict_proba(x)
    got = np.empty((40, macro(tmp_path / "net.h", "NET_PROBABILITIES")), "float32")
    for row, to in zip(at, got, strict=True):
        net.library.net_probabilities(row, to.ctypes.data_as(c_files.POINTER))
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-7)


def path_text(folder: Path) -> str:
    return (folder / "net.h").read_text("utf-8")


def test_refusals(tmp_path):
    model, path = small(), tmp_path / "net.c"

    class Own(fn.CustomLayer):
        def forward(self, x: Any, saved: Any) -> Any:
            return x * 2

        def backward(self, dy: Any, saved: Any) -> Any:
            return dy * 2

    def check(kind: Any, message: str, made: Any, *args: Any, **options: Any) -> None:
        refused(lambda: made.export_c(*args, **options), kind, message)

    custom = fn.Sequential(fn.Linear(3, 2), Own(), seed=0)
    check(UsageError, r"layer 1 \(Own\).* fn.elementwise", custom, path)
    loose = fn.Sequential(fn.Linear(3, 2), fn.BatchNorm1d(2, track_running_stats=False), seed=0)
    check(UsageError, r"layer 1 \(BatchNorm1d\).*track_running_stats=True", loose, path)
    check(ShapeError, "input_shape", fn.Sequential(fn.ReLU()), path)
    for wrong in ("", "1net", "a-b", "a" * 42, "ü", 3):
        check(HyperparameterError, "name is", model, path, wrong)
    check(HyperparameterError, "path is .*net.c", model, tmp_path / "net.txt")
    for wrong in ('a"b.c', "a\\b.c", "a\nb.c", "a\udcffb.c"):
        check(HyperparameterError, "path is", model, tmp_path / wrong)
    for clamp in (1, (1,), (2, 1), (0, "a"), (0, float("nan"))):
        check(HyperparameterError, "clamp", model, path, clamp=clamp)
    check(HyperparameterError, "weights is", model, path, weights="other")
    check(HyperparameterError, "dtype is", model, path, dtype="float16")
    check(HyperparameterError, "rows", model, path, rows=np.zeros((0, 4)))
    check(ShapeError, "input_shape is", model, path, input_shape=5)
    with model.training_lock():
        check(UsageError, "being trained", model, path)
    assert list(tmp_path.iterdir()) == []


def test_rows_of_two_dimensions_and_outputs_that_are_inputs(tmp_path):
    model = fn.Sequential(fn.Flatten(), fn.Identity(), seed=0)
    net = Compiled(exported(model, tmp_path, input_shape=(2, 3)), "-std=c99", "-O1", *STRICT)
    x = np.random.default_rng(0).normal(size=(5, 2, 3)).astype("float32")
    np.testing.assert_array_equal(net.predict(x), model.predict(x))
    again = x.copy()
    at = again.ctypes.data_as(c_files.POINTER)
    net.library.net_predict(at, at, net.scratch()[16:].ctypes.data_as(c_files.POINTER))
    np.testing.assert_array_equal(again, x)


def test_outputs_may_lie_over_inputs(tmp_path):
    model = fn.Sequential(fn.Linear(4, 4), fn.Tanh(), seed=0)
    net = Compiled(exported(model, tmp_path), "-O2", c_files.FMA)
    x = np.random.default_rng(0).normal(size=(1, 4)).astype("float32")
    want = model.predict(x)
    at = x.ctypes.data_as(c_files.POINTER)
    net.library.net_predict(at, at, net.scratch()[16:].ctypes.data_as(c_files.POINTER))
    np.testing.assert_array_equal(x, want)


def test_fast_math_is_refused(tmp_path):
    path = exported(small(), tmp_path)
    command = ["gcc", "-O2", "-ffast-math", "-c", path, "-o", tmp_path / "net.o"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode and "without -ffast-math" in found.stderr


def test_two_nets_in_one_file(tmp_path):
    for name in ("first", "second"):
        exported(small(), tmp_path, name)
    both = tmp_path / "both.c"
    both.write_text('#include "first.c"\n#include "second.c"\n')
    run("gcc", "-std=c99", *STRICT, "-c", both, "-o", tmp_path / "both.o")


def test_existing_files_stay_where_writing_fails(tmp_path):
    path = exported(small(), tmp_path)
    before = path.read_bytes()
    (tmp_path / "net.h").unlink()
    (tmp_path / "net.h").mkdir()
    model = fn.Sequential(fn.Linear(2, 2), seed=0)
    refused(lambda: model.export_c(path), HyperparameterError, "net.h', a folder")
    assert path.read_bytes() == before


def test_arguments_that_have_no_use_are_refused(tmp_path):
    model = fn.Sequential(fn.Linear(2, 1), seed=0)
    for given in ({"loss": fn.MSELoss()}, {"optimizer": fn.SGD()}, {"batch_size": 4}):
        with pytest.raises(HyperparameterError, match=f"{next(iter(given))} is .*trainable"):
            model.export_c(tmp_path / "net.c", **given)
    y = np.array([0, 1, 1, 0])
    fn.Trainer(model, fn.BCEWithLogitsLoss(), fn.SGD(0.1)).fit(np.ones((4, 2)), y, 1, 4, verbose=0)
    with pytest.raises(UsageError, match="clamp"):
        model.export_c(tmp_path / "net.c", clamp=(0, 10))
    assert not list(tmp_path.iterdir())


def test_categories_that_another_dtype_has_not(tmp_path):
    x = np.array([[0.1], [0.2], [0.3]])
    model = fn.Sequential(fn.preprocess.OneHot().fit(x), fn.Linear(4, 2), seed=0)
    with pytest.raises(UsageError, match=r"OneHot.*0\.1.*float32"):
        model.export_c(tmp_path / "net.c", dtype="float64")
    whole = fn.Sequential(fn.preprocess.OneHot().fit(x * 10), fn.Linear(4, 2), seed=0)
    assert len(whole.export_c(tmp_path / "net.c", dtype="float64")) == 2
