"""The device, or the simulator in its place: how kernels are compiled and launched, and find room."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numba import config
from numba import cuda as numba_cuda

from fastnet.backends.cuda.failures import no_memory

cuda: Any = numba_cuda
SIMULATOR = bool(getattr(config, "ENABLE_CUDASIM", 0))

# The simulator runs every CUDA thread as a thread of Python.
THREADS = 4 if SIMULATOR else 256  # in a block; a power of 4
BLOCKS = 2 if SIMULATOR else 1024  # at most, for loops that go on in strides
HIGHEST = 65535  # blocks in a grid's second dimension

syncthreads: Any
if SIMULATOR:
    from fastnet.backends.cuda import simulator

    simulator.share_safely()
    syncthreads = simulator.syncthreads
else:
    syncthreads = cuda.syncthreads


def kernel(function: Any) -> Any:
    """A kernel, compiled for the types of its arguments when it is first launched."""
    return cuda.jit(simulator.quiet(function) if SIMULATOR else function)


def device(function: Any) -> Any:
    """A function that kernels call."""
    return function if SIMULATOR else cuda.jit(device=True)(function)


Call = tuple[Callable[..., None], tuple[Any, ...]]
_tapes: dict[int, list[Call]] = {}  # by the stream


def enqueue(queue: Any, call: Callable[..., None], *arguments: Any) -> None:
    """Do `call(queue, *arguments)`, which enqueues work; all of it goes through here."""
    call(queue, *arguments)
    if id(queue) in _tapes:
        _tapes[id(queue)].append((call, arguments))


@contextmanager
def taped(queue: Any) -> Iterator[list[Call]]:
    """What is enqueued on a stream while this is open, to be enqueued again."""
    tape = _tapes[id(queue)] = []
    try:
        yield tape
    finally:
        del _tapes[id(queue)]


def launch(jitted: Any, blocks: Any, threads: Any, queue: Any, *arguments: Any) -> None:
    """Enqueue a kernel."""
    enqueue(queue, launch_now, jitted, blocks, threads, *arguments)


def launch_now(queue: Any, jitted: Any, blocks: Any, threads: Any, *arguments: Any) -> None:
    """The same, and no more."""
    if SIMULATOR:
        simulator.check(blocks, threads)
        jitted[blocks, threads, queue](*arguments)
        return
    key = jitted, blocks, threads, id(queue)
    ready, _ = _configured.get(key, (None, None))
    if ready is None:
        if len(_configured) >= 4096:  # they keep their streams alive
            _configured.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a small net's grids are small, as Numba would say
            ready = jitted[blocks, threads, queue]
        _configured[key] = ready, queue
    ready(*arguments)


_configured: dict[Any, Any] = {}  # kernels with their grids


def blocks_for(count: int, each: int = THREADS) -> int:
    """Blocks for so many elements, `each` to a block, in strides where there are many."""
    return min(-(-count // each), BLOCKS)


def flat(a: Any) -> Any:
    """A tensor in one dimension; remembered with it, as to make a view takes long. Numbers stay."""
    if getattr(a, "ndim", 0) < 2:
        return a
    try:
        return a.fastnet_flat
    except AttributeError:
        a.fastnet_flat = a.reshape(a.size)
        return a.fastnet_flat


_MANY = 8
_streams: list[Any] = []  # all
_idle: list[Any] = []  # those that nobody has


def stream_for(owner: Any) -> Any:
    """A stream that is the owner's as long as that lives, then another's, with its room and its cuBLAS."""
    if not _idle and len(_streams) >= _MANY:
        gc.collect()  # models die with the cycles that they are in
    try:
        stream = _idle.pop()
    except IndexError:
        stream = cuda.stream()
        _streams.append(stream)
    weakref.finalize(owner, _idle.append, stream)
    return stream


def new_array(shape: Any, dtype: Any) -> Any:
    """A device array whose values are anything; dead models give theirs back where memory is short."""
    try:
        return cuda.device_array(shape, dtype)
    except Exception as error:
        if not no_memory(error):
            raise
        gc.collect()
        return cuda.device_array(shape, dtype)


_scratch: dict[tuple[int, str, int], Any] = {}


def scratch(queue: Any, count: int, dtype: Any) -> Any:
    """At least `count` elements of room on the device, the stream's own, as what it runs goes in order.

    Nothing is given back, as work in flight, and graphs of it, use what was there before it grew.
    """
    size = 1 << max(count - 1, 0).bit_length()
    key = id(queue) if SIMULATOR else int(queue.handle), np.dtype(dtype).name, size
    if key not in _scratch:
        _scratch[key] = new_array(size, dtype)
    return _scratch[key]
