"""What all tests share: the backends they run on, and an op that joins two tensors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

# Before NumPy loads it: two threads of a BLAS on busy cores wait for each other most of the time.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from engines import Engine, backends, engines

import fastnet as fn
from fastnet import init, layers, losses, model, optim, preprocess, schedules, train
from fastnet.backends.base import Backend
from fastnet.late import load_ops
from fastnet.losses import base as losses_base
from fastnet.model.runtime import Runtime
from fastnet.op import GUESTS, KERNELS, Op
from fastnet.plan import instructions
from fastnet.tangents import curves

# Tests look through namespaces and lists of kernels. What loads late is tested in processes of their own.
load_ops()
curves.every()  # second derivatives are ops too, which are made at first use
for package in (fn, init, layers, losses, model, optim, preprocess, schedules, train):
    for name in package.__all__:
        getattr(package, name)

# The asserts of what tests share speak, and stay under python -O; engines.py has none.
SHARED = {path.stem for path in (Path(__file__).parent / "support").glob("*.py")} - {"engines"}
pytest.register_assert_rewrite(*SHARED)

if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0":
    sys.setswitchinterval(1e-4)  # its threads of Python wait for each other all the time


@cache
def _engines() -> list[Engine]:
    return engines(backends())


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test runs once for the name of each `backend`, or for each `engine`, a Backend."""
    if "backend" in metafunc.fixturenames:
        slow = [name for mark in metafunc.definition.iter_markers("slow_on") for name in mark.args]
        given = {name: [pytest.mark.slow] if name in slow else [] for name in backends()}
        metafunc.parametrize("backend", [pytest.param(n, marks=m) for n, m in given.items()])
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", _engines(), indirect=True, ids=str)


@pytest.fixture(autouse=True)
def _losses_alone_are_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let losses outside models run the reference, by which tests judge compiled kernels."""
    monkeypatch.setattr(losses_base, "step_of", None)
    monkeypatch.setattr(Runtime, "compiled_losses", False)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend's instance, at one of its levels of instruction sets where it has some."""
    with request.param.running() as backend:
        yield backend


@pytest.fixture(name="engines")
def all_engines() -> list[Engine]:
    """All of them: for a test that makes operands and the reference's answer once."""
    return _engines()


@pytest.fixture
def passing_ops():
    """Ops that a test defines are forgotten after it, by the backends that made kernels of them too."""
    before = set(KERNELS)
    yield
    tables = [KERNELS, instructions._NUMBER]
    for backend, table in (("numba", "FUNCTIONS"), ("cuda", "LAUNCHERS")):
        if kernels := sys.modules.get(f"fastnet.backends.{backend}.kernels"):
            tables.append(getattr(kernels, table))
    for name in set(KERNELS) - before:
        for table in tables:
            table.pop(name, None)
    for number, kernel in list(instructions._AT.items()):
        if kernel.name not in KERNELS and kernel.name not in GUESTS:
            del instructions._AT[number]


@pytest.fixture
def product(passing_ops):
    """An op y = a·b, elementwise, that only the reference kernels know; unregistered afterwards."""

    class product(Op):  # noqa: N801
        outputs: ClassVar = {"y": "B N"}
        inputs: ClassVar = {"a": "B N", "b": "B N"}
        dims = ("N",)

        @staticmethod
        def forward(y, a, b):
            np.multiply(a, b, out=y)

        @staticmethod
        def vjp(da, db, dy, a, b):
            for grad, other in ((da, b), (db, a)):
                if grad.size:
                    np.multiply(dy, other, out=grad)

    return product


@pytest.fixture
def heeding_ctrl_c():
    """Python's own handler, which a process started in the background may lack."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
