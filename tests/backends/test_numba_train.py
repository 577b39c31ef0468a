"""Training on the Numba backend: as on the reference, by threads, and without what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("numba")

import fastnet

ROWS, WIDTH = 40, 5


def fit(backend, dtype="float32"):
    x = np.random.default_rng(1).integers(0, 255, (ROWS, WIDTH), np.uint8)
    labels = np.arange(ROWS) % 3
    model = fastnet.Sequential(
        fastnet.Linear(WIDTH, 16),
        fastnet.BatchNorm1d(16),
        fastnet.Tanh(),
        fastnet.Dropout(0.3),
        fastnet.Linear(16, 3),
        dtype=dtype,
        backend=backend,
        seed=4,
    )
    trainer = fastnet.Trainer(model, fastnet.CrossEntropyLoss(), fastnet.Adam(0.01), seed=5)
    trainer.fit(x, labels, epochs=3, batch_size=8, verbose=0)
    return {name: np.array(value) for name, value in model.state_dict().items()}


def test_a_model_trains_as_on_the_reference():
    want = fit("reference", "float64")
    for name, value in fit("numba", "float64").items():
        np.testing.assert_allclose(value, want[name], rtol=1e-6, atol=1e-9, err_msg=name)


def test_threads_train_their_own_models():
    want, got = fit("numba"), []

    def work():
        got.append(fit("numba"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 4
    for state in got:
        for name, value in state.items():
            np.testing.assert_array_equal(value, want[name])


def script(text, **environment):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    ).stdout


def test_threads_may_be_the_first_to_compile():
    text = """
import threading
from tests.backends.test_numba_train import fit
states = []
threads = [threading.Thread(target=lambda: states.append(fit("numba"))) for _ in range(4)]
[t.start() for t in threads]
[t.join() for t in threads]
print(len(states))
"""
    assert script(text) == "4\n"


def test_without_numba_it_says_how_to_get_it():
    text = """
import sys
sys.modules["numba"] = None
import fastnet
print(fastnet.backends()["numba"].reason)
"""
    assert script(text) == "numba is not installed: pip install 'fastnet-engine[numba]'\n"


def test_a_broken_numba_is_quoted():
    text = """
import sys, importlib.abc
class Broken(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "numba":
            raise ImportError("Numba needs NumPy 1.0 or less")
sys.meta_path.insert(0, Broken())
import fastnet
print(fastnet.backends()["numba"].reason)
"""
    assert script(text) == "numba cannot be imported: Numba needs NumPy 1.0 or less\n"


def test_importing_fastnet_does_not_import_numba():
    assert script("import sys, fastnet; print('numba' in sys.modules)") == "False\n"


@pytest.mark.parametrize("way", ["plain", "loops"])
def test_products_without_blas(way):
    """NUMBA_DISABLE_JIT takes NumPy's product; where no BLAS is found, jitted loops do."""
    text = """
import ctypes, numpy as np
from fastnet.backends.numba import blas
if WAY == "loops":
    blas.FOUND = None
from fastnet.backends.numba.kernels import FUNCTIONS
assert hasattr(FUNCTIONS["linear_vjp"], "py_func") == (WAY == "loops")
x, w, b = np.ones((4, 3), "f4"), np.arange(6, dtype="f4").reshape(3, 2), np.ones(2, "f4")
y, dx, dw, db = np.full((4, 2), np.nan, "f4"), x * np.nan, w * np.nan, b * np.nan
FUNCTIONS["linear_forward"](y, x, w, b)
assert np.array_equal(y, x @ w + b), y
for accumulate in (0, 1):
    FUNCTIONS["linear_vjp"](dx, dw, db, y, x, w, accumulate)
    assert np.array_equal(dx, y @ w.T), dx
    assert np.array_equal(dw, (1 + accumulate) * (x.T @ y)), dw
    assert np.array_equal(db, (1 + accumulate) * y.sum(axis=0)), db
print("ok")
"""
    disabled = {"NUMBA_DISABLE_JIT": "1" if way == "plain" else "0"}
    assert script(text.replace("WAY", repr(way)), **disabled) == "ok\n"
