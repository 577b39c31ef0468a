"""Ctrl-C while Numba compiles: LLVM calls back into Python, where an exception would be lost."""

from __future__ import annotations

import signal
from types import SimpleNamespace

import pytest

pytest.importorskip("numba")
natives = pytest.importorskip("fastnet.backends.numba.natives")


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_waits_for_the_function_that_is_being_compiled():
    known, compiled = natives.Natives(), []

    def compile():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:  # as a callback from C would lose it
            return SimpleNamespace(address=0)
        compiled.append(1)
        return SimpleNamespace(address=7)

    with pytest.raises(KeyboardInterrupt):
        known.address("name", compile, keep=False)
    assert compiled == [1]
    assert known.address("name", compile, keep=False) == 7  # with the lock free, and not made anew
    assert compiled == [1]
