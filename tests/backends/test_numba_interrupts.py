"""Ctrl-C while Numba compiles: it is answered at once, and what was being compiled is not lost."""

from __future__ import annotations

import signal
import threading
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("numba")
natives = pytest.importorskip("fastnet.backends.numba.natives")


@pytest.mark.usefixtures("heeding_ctrl_c")
def test_ctrl_c_does_not_wait_for_the_function_that_is_being_compiled():
    known, compiled, go = natives.Natives(), [], threading.Event()

    def compile():
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        assert go.wait(60)  # until the main thread has answered
        compiled.append(1)
        return SimpleNamespace(address=7)

    with pytest.raises(KeyboardInterrupt):
        known.address("name", compile, keep=False)
    assert compiled == []
    go.set()
    assert known.address("name", compile, keep=False) == 7  # made once, with the lock free
    assert compiled == [1]


def test_what_compiling_raises_is_raised():
    known = natives.Natives()

    def compile():
        raise TypeError("no such thing")

    with pytest.raises(TypeError, match="no such thing"):
        known.address("name", compile, keep=False)
    assert known.address("name", lambda: SimpleNamespace(address=7), keep=False) == 7


def test_other_threads_wait_for_it():
    known, compiled = natives.Natives(), []

    def compile():
        time.sleep(0.1)
        compiled.append(1)
        return SimpleNamespace(address=7)

    threads = [
        threading.Thread(target=known.address, args=("name", compile, False)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert known.address("name", compile, keep=False) == 7
    for thread in threads:
        thread.join()
    assert compiled == [1]
