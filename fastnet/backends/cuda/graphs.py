"""Repetition of an enqueued step: as one CUDA graph, or call by call.

A step records its calls when it is enqueued first, which also compiles and loads kernels and allocates
memory. From the second time on it launches a CUDA graph. The capture of this graph repeats the calls on a
stream of its own. That stream does not block: during a capture on any other stream the driver would refuse
work that other threads or libraries enqueue on the default stream, because it waits for all blocking
streams. After any error the step makes its calls one by one, and a single warning says so.
"""

from __future__ import annotations

import os
import threading
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from fastnet.backends.cuda import cublas
from fastnet.backends.cuda.device import SIMULATOR, Call, cuda
from fastnet.backends.cuda.failures import doing

VARIABLE = "FASTNET_CUDA_GRAPHS"  # 0: use none
_capturing = threading.Lock()
_failure: str | None = None  # why graphs are not used any more
_told = False


class Step:
    """The calls that enqueue a step. `used` is kept alive as long as they may be repeated."""

    def __init__(self, calls: Sequence[Call], used: Any = None) -> None:
        self.calls, self._used = calls, used
        self._graph: _Graph | None = None
        self._wanted = not SIMULATOR and os.environ.get(VARIABLE, "1") not in ("", "0")

    def enqueue(self, queue: Any) -> None:
        """Enqueue the step on the stream on which it was recorded."""
        if self._wanted and _failure is None:
            try:
                if self._graph is None:
                    self._graph = _Graph(queue, self.calls)
                self._graph.launch(queue)
                return
            except Exception as error:
                _give_up(error)
        with doing("the kernels of a training step"):
            for call, arguments in self.calls:
                call(queue, *arguments)


def _give_up(error: Exception) -> None:
    global _failure
    _failure = " ".join(str(error).split()) or type(error).__name__


def tell() -> None:
    """Warn once if graphs could not be used."""
    global _told
    if _failure is not None and not _told:
        _told = True
        warnings.warn(
            f"CUDA graphs cannot be used here: {_failure}. Kernels are launched one by one, which takes "
            f"longer where they are small; {VARIABLE}=0 in the environment does not try",
            RuntimeWarning,
            stacklevel=2,
        )


class _Graph:
    """An executable graph of calls."""

    def __init__(self, queue: Any, calls: Sequence[Call]) -> None:
        self._driver = driver = _driver()
        side = _side()
        with _capturing, cuda.defer_cleanup(), cublas.moved(queue, side):
            graph = _capture(side, calls)
        try:
            _, count = driver.cuGraphGetNodes(graph)
            if count < len(calls):
                raise RuntimeError(f"of {len(calls)} calls only {count} were captured")
            self._handle = driver.cuGraphInstantiate(graph, 0)
        finally:
            driver.cuGraphDestroy(graph)
        later = cuda.current_context().deallocations  # Numba frees these outside captures
        end = weakref.finalize(self, later.add_item, driver.cuGraphExecDestroy, self._handle)
        end.atexit = False

    def launch(self, queue: Any) -> None:
        self._driver.cuGraphLaunch(self._handle, queue.handle)


def _capture(side: Any, calls: Sequence[Call]) -> Any:
    driver = _driver()
    mode = _binding().CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    driver.cuStreamBeginCapture(side.handle, mode)
    try:
        for call, arguments in calls:
            call(side, *arguments)
    except BaseException:
        with suppress(Exception):  # report only the first error
            driver.cuGraphDestroy(driver.cuStreamEndCapture(side.handle))
        raise
    return driver.cuStreamEndCapture(side.handle)


@cache
def _side() -> Any:
    """The stream for captures, one step at a time; no work ever runs on it."""
    flag = _binding().CUstream_flags.CU_STREAM_NON_BLOCKING.value
    return cuda.external_stream(int(_driver().cuStreamCreate(flag)))


def _driver() -> Any:
    """Numba's driver, whose functions raise errors."""
    return cuda.driver.driver


def _binding() -> Any:
    return cuda.driver.binding
