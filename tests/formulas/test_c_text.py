"""Formulas in C: their text, their values, and that the kernels are those of the ops."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fastnet.export.elements import elements_of
from fastnet.formulas import c_text
from fastnet.formulas.c_text import CAST, NAMES, files
from fastnet.formulas.language import Numbers, Real, formula, madd, sigmoid, sqrt, where
from fastnet.formulas.portable import horner
from fastnet.formulas.translate import Translator
from fastnet.op import KERNELS

CSRC = Path(__file__).parents[2] / "csrc"
GENERATED = CSRC / "generated"


def test_the_c_files_are_what_the_generator_writes():
    texts = files()
    assert sum(text.count(f"{name},") for name in KERNELS for text in texts.values()) >= 10
    for name, text in texts.items():
        assert (GENERATED / name).read_text("utf-8") == text, (
            f"run python csrc/generate.py ({name})"
        )
    assert {path.name for path in GENERATED.iterdir()} == texts.keys()


def test_elements_of_exported_files_are_those_of_csrc():
    text = (CSRC.parent / "fastnet" / "export" / "elements.h").read_text("utf-8")
    assert text == elements_of(CSRC / "lib"), "run python csrc/generate.py"
    assert {"exp", "erf", "sin", "maximum"} <= set(re.findall(r"^ELEMENT real_(\w+)\(", text, re.M))


def test_functions_of_formulas_have_names_of_their_own():
    """Files are compiled together."""
    names = [n for text in files().values() for n in re.findall(r"^ELEMENT (\w+)\(", text, re.M)]
    assert {name.rpartition("_")[2] for name in names} > {"settled", "of"}
    assert len(names) == len(set(names))


def test_the_generator_leaves_files_alone_that_are_as_they_were(tmp_path):
    shutil.copy(CSRC / "generate.py", tmp_path)
    folder = tmp_path / GENERATED.name
    folder.mkdir()
    copies = {name: folder / name for name in files()}
    for name, path in copies.items():
        shutil.copy(GENERATED / name, path)
        os.utime(
            path, ns=(0, 0)
        )  # a file that is written again has another time, and is built again
    copies["lion.c"].write_text("other", "utf-8")
    copies["sgd.c"].unlink()
    root = str(CSRC.parent)
    command = [sys.executable, tmp_path / "generate.py"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    assert sorted(done.stdout.split()) == ["lion.c", "sgd.c"]
    changed = {name for name, path in copies.items() if path.stat().st_mtime_ns}
    assert changed == {"lion.c", "sgd.c"}
    assert all(path.read_text("utf-8") == files()[name] for name, path in copies.items())


@formula
def halved(x: Real) -> Real:
    """A function of elements."""
    return x / 2


@formula
def mean(x: Real, mover: Real, n: Numbers) -> tuple[Real, Real]:
    """Several values."""
    new = madd(1 - n.rate, mover, n.rate * x)
    return new, abs(new)


COEFFICIENTS = (0.5, -1.5, 2.0)


@formula
def example(x: Real, y: Real, n: Numbers) -> tuple[Real, Real]:
    """One of each kind of what the language has."""
    new, size = mean(x, halved(y), n)
    series = horner(COEFFICIENTS, new)
    return where((size > 1) & ~(x < y), sqrt(size), sigmoid(series)), -new / n.eps


def written(numbers):
    """The functions of `example` in C, and their names."""
    translator = Translator(NAMES)
    text = translator.text(example, CAST, numbers)
    given = ["real x", "real y", *(f"double {name}" for name in numbers)]
    called = {name: translator.text(f, CAST) for name, f in translator.called.items()}
    functions = [c_text.function(name, ["real x"], of_one) for name, of_one in called.items()]
    return functions + [c_text.function(f"example{i}", given, text, i) for i in range(2)]


def test_the_text_of_a_formula():
    assert written(("rate", "eps"))[:2] == [
        "ELEMENT halved(real x) {\n    return x / R(2.0);\n}",
        """ELEMENT example0(real x, real y, double rate, double eps) {
    const real mover = halved(y);
    const real new = madd(R(1.0 - rate), mover, R(rate) * x);
    const real size = real_abs(new);
    const real series = madd(madd(R(0.5), new, R(-1.5)), new, R(2.0));
    return where((size > R(1.0)) & ((x < y) == 0), real_sqrt(size), real_sigmoid(series));
}""",
    ]


LOOP = """
void example(real *a, real *b, const real *x, const real *y, double rate, double eps, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        a[i] = example0(x[i], y[i], rate, eps);
        b[i] = example1(x[i], y[i], rate, eps);
    }
}
"""


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_values_are_the_reference_s(dtype, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = tmp_path / "example.c", tmp_path / "example.so"
    functions = "\n\n".join(written(("rate", "eps")))
    source.write_text(f'#include "lib/formula.h"\n\n{functions}\n{LOOP}', encoding="utf-8")
    macros = ["-DLEVEL=0", f"-DREAL_IS_DOUBLE={int(dtype == 'float64')}"]
    flags = ["-O2", "-std=gnu11", "-ffp-contract=off", "-fPIC", "-shared", f"-I{CSRC}", *macros]
    subprocess.run([compiler, *flags, str(source), "-o", str(library)], check=True, timeout=300)
    x, y = np.random.default_rng(0).normal(scale=3, size=(2, 1000)).astype(dtype)
    a, b = np.empty_like(x), np.empty_like(x)
    pointers = [ctypes.c_void_p(v.ctypes.data) for v in (a, b, x, y)]
    numbers = ctypes.c_double(0.9), ctypes.c_double(1e-3)
    ctypes.CDLL(str(library)).example(*pointers, *numbers, ctypes.c_int64(x.size))
    want = example(x, y, SimpleNamespace(rate=0.9, eps=1e-3))
    near = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(a, want[0], rtol=near, atol=near)
    np.testing.assert_allclose(b, want[1], rtol=near, atol=near * 1e3)


@formula
def with_noise(g: Real, sigma: float, tail: Real) -> Real:
    """An update that draws."""
    return g + sigma * tail


@pytest.mark.parametrize("double", [0, 1])
def test_an_update_may_draw(tmp_path, double):
    op = SimpleNamespace(
        scalars=(), hyper=("sigma",), state={"g": "N"}, written=lambda phase: ("g",)
    )
    kernel = SimpleNamespace(
        name="noisy_update", phase="update", op=op, formula=with_noise, tensors=("g",)
    )
    source = tmp_path / "noisy.c"
    source.write_text(c_text.file("fastnet.optim.noisy", [c_text.Source(kernel)]), "utf-8")
    compiler = shutil.which("cc") or pytest.skip("no C compiler")
    flags = ["-std=gnu11", "-fsyntax-only", "-Wall", "-Werror", "-DLEVEL=0"]
    command = [compiler, *flags, f"-DREAL_IS_DOUBLE={double}", "-I", CSRC, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
