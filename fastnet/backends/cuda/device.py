"""The device, or its simulator: compilation and launches of kernels, streams and memory."""

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
THREADS = 4 if SIMULATOR else 256  # threads of a block, a power of 4
BLOCKS = 2 if SIMULATOR else 1024  # the most blocks of a grid-stride loop
HIGHEST = 65535  # the most blocks in a grid's second dimension

syncthreads: Any
if SIMULATOR:
    from fastnet.backends.cuda import simulator

    simulator.share_safely()
    syncthreads = simulator.syncthreads
else:
    syncthreads = cuda.syncthreads


def kernel(function: Any) -> Any:
    """A kernel, compiled for the types of its arguments at its first launch."""
    return cuda.jit(simulator.quiet(function) if SIMULATOR else function)


def device(function: Any) -> Any:
    """A function for kernels to call."""
    return function if SIMULATOR else cuda.jit(device=True)(function)


Call = tuple[Callable[..., None], tuple[Any, ...]]
_tapes: dict[int, list[Call]] = {}  # by stream


def enqueue(queue: Any, call: Callable[..., None], *arguments: Any) -> None:
    """Call `call(queue, *arguments)`, which enqueues work; all work is enqueued through this function."""
    call(queue, *arguments)
    if id(queue) in _tapes:
        _tapes[id(queue)].append((call, arguments))


@contextmanager
def taped(queue: Any) -> Iterator[list[Call]]:
    """The calls that enqueue work on a stream while this is open, recorded to be repeated."""
    tape = _tapes[id(queue)] = []
    try:
        yield tape
    finally:
        del _tapes[id(queue)]


def launch(jitted: Any, blocks: Any, threads: Any, queue: Any, *arguments: Any) -> None:
    """Enqueue a kernel."""
    enqueue(queue, launch_now, jitted, blocks, threads, *arguments)


def launch_now(queue: Any, jitted: Any, blocks: Any, threads: Any, *arguments: Any) -> None:
    """Launch a kernel without recording it."""
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
            warnings.simplefilter("ignore")  # Numba's, that the grids of a small net are small
            ready = jitted[blocks, threads, queue]
        _configured[key] = ready, queue
    ready(*arguments)


_configured: dict[Any, Any] = {}  # kernels with grid and stream


def blocks_for(count: int, each: int = THREADS) -> int:
    """The number of blocks for so many elements, `each` in a block; large grids use strides."""
    return min(-(-count // each), BLOCKS)


def flat(a: Any) -> Any:
    """A one-dimensional view of a tensor, cached on it, as making one is slow; numbers stay as they are."""
    if getattr(a, "ndim", 0) < 2:
        return a
    try:
        return a.fastnet_flat
    except AttributeError:
        a.fastnet_flat = a.reshape(a.size)
        return a.fastnet_flat


_MANY = 8
_streams: list[Any] = []  # all streams
_idle: list[Any] = []  # streams without an owner


def stream_for(owner: Any) -> Any:
    """A stream for an owner; after the owner's death another one reuses it, with workspace and cuBLAS."""
    if not _idle and len(_streams) >= _MANY:
        gc.collect()  # frees dead models in reference cycles
    try:
        stream = _idle.pop()
    except IndexError:
        stream = cuda.stream()
        _streams.append(stream)
    weakref.finalize(owner, _idle.append, stream)
    return stream


def new_array(shape: Any, dtype: Any) -> Any:
    """An uninitialised device array; frees the memory of dead models if there is too little."""
    try:
        return cuda.device_array(shape, dtype)
    except Exception as error:
        if not no_memory(error):
            raise
        gc.collect()
        return cuda.device_array(shape, dtype)


_scratch: dict[tuple[int, str, int], Any] = {}


def scratch(queue: Any, count: int, dtype: Any) -> Any:
    """A stream's workspace of at least `count` elements on the device; the stream's order protects it.

    It is never freed, because work in flight and CUDA graphs use the old one after it has grown.
    """
    size = 1 << max(count - 1, 0).bit_length()
    key = id(queue) if SIMULATOR else int(queue.handle), np.dtype(dtype).name, size
    if key not in _scratch:
        _scratch[key] = new_array(size, dtype)
    return _scratch[key]
