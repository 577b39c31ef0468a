"""Products of middling size run on one thread of the BLAS, and its number of threads is given back."""

from __future__ import annotations

import os

import child
import numpy as np
import pytest

import fastnet
from fastnet.backends.numba.threads import FEW, MANY, OneThread


class Blas:
    """Keeps a number of threads, as an OpenBLAS does, and what it has been."""

    def __init__(self, threads):
        self.threads, self.calls = threads, []
        self.one = OneThread(lambda: self.threads, self.put)

    def put(self, threads):
        self.threads = threads
        self.calls.append(threads)


def test_one_inside_and_the_number_from_before_afterwards():
    blas = Blas(4)
    for _ in range(2):
        with blas.one:
            assert blas.threads == 1
        assert blas.threads == 4
    with pytest.raises(ZeroDivisionError), blas.one:
        _ = 1 / 0
    assert blas.threads == 4


def test_nothing_is_set_where_there_is_one_thread_anyway():
    blas = Blas(1)
    with blas.one:
        pass
    assert blas.calls == []


def test_the_last_to_leave_restores():
    blas = Blas(4)
    blas.one.__enter__()
    blas.one.__enter__()
    blas.one.__exit__()
    assert blas.threads == 1
    blas.one.__exit__()
    assert blas.calls == [1, 4]


def test_what_somebody_else_has_set_stays():
    blas = Blas(4)
    with blas.one:
        blas.put(3)
    assert blas.threads == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_in_a_forked_process_nobody_is_inside():
    blas = Blas(4)
    blas.one.__enter__()
    pid = os.fork()
    if pid == 0:
        with blas.one:
            inside = blas.threads
        os._exit(10 * inside + blas.threads)
    blas.one.__exit__()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 14


def model(inputs, rows):
    """A net whose product for `rows` rows has inputs·16·rows multiplications; and a minibatch."""
    net = fastnet.Sequential(fastnet.Linear(inputs, 16), backend="numba", seed=0)
    return net, np.ones((rows, inputs), np.float32)


@pytest.fixture
def entered(monkeypatch):
    """What says how often products were put on one thread."""
    pytest.importorskip("numba")
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        pytest.skip("NumPy's products are called, no BLAS")
    from fastnet.backends.numba import blas

    if blas.FOUND is None:
        pytest.skip("no BLAS")
    fake = Blas(4)
    monkeypatch.setitem(vars(blas.FOUND), "one_thread", fake.one)
    return fake.calls


@pytest.mark.parametrize(
    ("multiplications", "alone"), [(FEW, False), (2 * FEW, True), (MANY, True), (2 * MANY, False)]
)
def test_the_size_of_the_largest_product_decides(entered, multiplications, alone):
    rows = 256 if multiplications > 2 * FEW else 2
    net, x = model(multiplications // 16 // rows, rows)
    loss, y = fastnet.MSELoss(), np.ones((rows, 16), np.float32)
    trainer = fastnet.Trainer(net, loss, fastnet.SGD(1e-9))
    for use in (
        lambda: net.predict(x),
        lambda: net.value_and_grad(loss, x, y),
        lambda: trainer.fit(x, y, epochs=1, batch_size=rows, verbose=0),
    ):
        entered.clear()
        use()
        assert bool(entered) == alone


# Fits in several threads at once; prints the BLAS's number of threads before, during and after.
FITS = """
import json, threading
import numpy as np
import fastnet as fn
from fastnet.backends import registry
registry.get("numba")
from fastnet.backends.numba import blas
one = blas.FOUND and blas.FOUND.one_thread

def fit():
    model = fn.Sequential(fn.Linear(64, 64), backend="numba", seed=0)
    x = np.ones((512, 64), np.float32)
    trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(1e-3))
    for _ in range(50):
        trainer.fit(x, x, epochs=1, batch_size=128, verbose=0)
        during.add(one._get())

if one is None:
    print("null")
else:
    before, during = one._get(), set()
    with one:
        during.add(one._get())
    threads = [threading.Thread(target=fit) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    print(json.dumps([before, sorted(during), one._get()]))
"""


def test_threads_that_fit_at_once_leave_the_blas_as_it_was():
    pytest.importorskip("numba")
    found = child.run(FITS, OPENBLAS_NUM_THREADS="2", NUMBA_DISABLE_JIT="0")
    if found is None:
        pytest.skip("NumPy's BLAS is none whose threads can be set")
    before, during, after = found
    assert 1 in during
    assert after == before
