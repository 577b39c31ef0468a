"""What all tests share: the backends they run on, and an op that joins two tensors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import pytest

import fastnet
from fastnet.backends import registry
from fastnet.backends.base import Backend
from fastnet.op import KERNELS, Op
from fastnet.plan import instructions

if os.environ.get("NUMBA_ENABLE_CUDASIM", "0") != "0":
    sys.setswitchinterval(1e-4)  # its threads of Python wait for each other all the time


def _backends() -> list[str]:
    """The available backends, or those named in FASTNET_TEST_BACKENDS, which must be available."""
    available = [name for name, info in fastnet.backends().items() if info.available]
    wanted = os.environ.get("FASTNET_TEST_BACKENDS", "")
    if not wanted:
        return available
    names = [name.strip() for name in wanted.split(",")]
    if missing := set(names) - set(available):
        raise pytest.UsageError(
            f"FASTNET_TEST_BACKENDS: {sorted(missing)} not available; there are {available}"
        )
    return names


def _engines() -> list[Any]:
    """Those backends, and the C backend once for every instruction set of this machine."""
    found = []
    for name in _backends():
        for level in getattr(registry.get(name), "levels", lambda: (None,))():
            found.append(pytest.param((name, level), id=f"{name}-{level}" if level else name))
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test runs once for the name of each `backend`, or for each `engine`, a Backend."""
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", _backends())
    if "engine" in metafunc.fixturenames:
        metafunc.parametrize("engine", _engines(), indirect=True)


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A backend's instance, at one of its levels of instruction sets where it has some."""
    name, level = request.param
    backend: Any = registry.get(name)
    if level is None:
        yield backend
        return
    before = backend.level()
    backend.set_level(backend.levels().index(level))
    yield backend
    backend.set_level(before)


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
