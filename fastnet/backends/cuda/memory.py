"""Device memory: copies of host segments and data sets, and which side has the newer values."""

from __future__ import annotations

import math
import signal
import threading
import weakref
from collections.abc import Container, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Self

import numpy as np

from fastnet.backends.cuda.arrays import matrix
from fastnet.backends.cuda.device import SIMULATOR, new_array, stream_for
from fastnet.backends.cuda.failures import doing
from fastnet.data.arrays import on_device
from fastnet.data.dataset import Dataset
from fastnet.interrupts import Bracket
from fastnet.op import Array
from fastnet.plan.segments import Storage

# The simulator runs one kernel at a time; a device accepts launches of several threads.
_SHARED = threading.RLock() if SIMULATOR else None


def empty(shape: tuple[int, ...], dtype: Any, what: str = "a workspace") -> Any:
    """A new device array, uninitialised."""
    nbytes = math.prod(shape) * np.dtype(dtype).itemsize
    with doing(f"{what} of {nbytes} bytes"):
        return new_array(shape, dtype)


def cut(block: Any, offset: int, shape: tuple[int, ...], dtype: Any) -> Any:
    """A view of the array at an offset of a device array of bytes."""
    dtype = np.dtype(dtype)
    nbytes = math.prod(shape) * dtype.itemsize
    return block[offset : offset + nbytes].view(dtype).reshape(*shape)


class Block:
    """A host array of bytes and its copy on the device."""

    def __init__(self, host: Array) -> None:
        self.host = weakref.ref(host)
        self.device = empty(host.shape, np.uint8, "a segment")
        self.seen = -1  # the host's version that was last copied to the device
        self.newer = False  # whether the device has values that the host lacks


class Segments:
    """The segments of a model, and of its optimizers and trainers, on the device.

    All other code reads and writes the host's arrays. Before a call, the arrays that the host has changed
    since (`Storage.host_version`) are copied to the device. Arrays that the device has changed are copied
    back after the call, or when the last `resident` block ends. Only one call runs at a time.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = weakref.ref(storage)
        self._blocks: dict[int, Block] = {}  # by the host array's id
        self._resident = 0
        self._lock = _SHARED or threading.RLock()
        with doing("a stream"):
            self.stream = stream_for(self)

    @property
    def storage(self) -> Storage:
        """The model's segments on the host."""
        found = self._storage()
        assert found is not None
        return found

    def block(self, host: Array) -> Block:
        """The block of a host array, made at first use."""
        key = id(host)
        block = self._blocks.get(key)
        if block is None or block.host() is not host:
            block = self._blocks[key] = Block(host)
            weakref.finalize(host, self._blocks.pop, key, None)
        return block

    def named(self, name: str) -> Block:
        """The block of one of the model's own segments."""
        return self.block(self.storage.segments[name])

    @contextmanager
    def call(self, *more: Array) -> Iterator[None]:
        """While this is open, the device has the newest values of the model's segments and of `more`."""
        with self._lock, uninterrupted():
            self._upload([*self.storage.segments.values(), *more])
            try:
                yield
            finally:
                if not self._resident:
                    self.download()

    def resident(self) -> AbstractContextManager[None]:
        """Keep changed values on the device until this ends."""
        return _Resident(self)

    def stay(self, more: int) -> None:
        """Count resident blocks; when none is left, copy changed values to the host."""
        self._resident += more
        if not self._resident:
            with self._lock:
                self.download()

    def _upload(self, hosts: list[Array]) -> None:
        storage = self.storage
        if storage.editing:
            storage.take_edits()
        for host in hosts:
            block = self.block(host)
            if block.seen != storage.host_version:
                if host.size:
                    put(block.device, host, self.stream)
                block.seen, block.newer = storage.host_version, False

    def note(self, names: Container[str], own: Mapping[str, Array]) -> None:
        """Mark these segments, the model's or those of `own`, as changed on the device."""
        for name, host in {**self.storage.segments, **own}.items():
            if name in names:
                self.block(host).newer = True

    def changing(self) -> list[Any]:
        """The device arrays that are, or are about to be, newer than the host's."""
        return [block.device for block in self._blocks.values() if block.newer]

    def download(self) -> None:
        """Copy to the host the values that it lacks."""
        for block in [*self._blocks.values()]:
            host = block.host()
            if block.newer and host is not None:
                if host.size:
                    fetch(block.device, host, self.stream)
                block.newer = False

    def synchronize(self) -> None:
        """Wait until all launched work is done; raises its errors."""
        with doing("what was launched"):
            self.stream.synchronize()


class _Resident(Bracket[None]):
    """The block of `Segments.resident`."""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    def _begin(self) -> None:
        self._segments.stay(1)

    def _end(self) -> None:
        self._segments.stay(-1)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Postpone Ctrl-C until the end of this block, as a native call does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python interrupts only the main thread
        return
    came: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if before is None else before)
        if came:
            signal.raise_signal(signal.SIGINT)


_known: weakref.WeakKeyDictionary[Storage, Segments] = weakref.WeakKeyDictionary()
_first = threading.Lock()


def segments_of(storage: Storage) -> Segments:
    """A model's segments on the device, the same for all its executors."""
    with _first:
        if storage not in _known:
            _known[storage] = Segments(storage)
        return _known[storage]


def put(device: Any, host: Array, stream: Any) -> None:
    """Copy a host array into a device array; afterwards the host array may change."""
    with doing("copying to the device"):
        device.copy_to_device(host, stream=stream)


def fetch(device: Any, host: Array, stream: Any) -> Array:
    """Copy a device array into a host array, and return that when the copy is done."""
    with doing("what was launched before its results were read"):
        device.copy_to_host(host, stream=stream)
        stream.synchronize()
    return host


class Snapshot:
    """Copies of device arrays of bytes on the device, in memory that is reused."""

    def __init__(self) -> None:
        self._copies: dict[int, Any] = {}
        self._pairs: list[tuple[Any, Any]] = []

    def take(self, arrays: list[Any], stream: Any) -> Self:
        """Copy the arrays' values at this point of the stream."""
        self._pairs = []
        for number, array in enumerate(arrays):
            if array.size:
                if number not in self._copies or self._copies[number].size != array.size:
                    self._copies[number] = empty(array.shape, np.uint8, "a copy of a segment")
                self._copies[number].copy_to_device(array, stream=stream)
                self._pairs.append((array, self._copies[number]))
        return self

    def restore(self, stream: Any) -> None:
        """Restore the copied values."""
        for array, copy in self._pairs:
            array.copy_to_device(copy, stream=stream)


class DeviceData:
    """A data set on the device: rows of numbers in their own dtypes, and the rows with invalid labels."""

    def __init__(self, data: Dataset, stream: Any) -> None:
        def moved(array: Any) -> Any:
            if on_device(array):
                return matrix(array)
            # A one-dimensional step, because the simulator does not accept strides of 0.
            rows = array.ravel().reshape(len(array), math.prod(array.shape[1:]))
            device = empty(rows.shape, rows.dtype, "a data set's array")
            put(device, rows, stream)
            return device

        y = np.array(data.y)  # a copy, because another thread may write to it
        self.x, self.y = moved(data.x), moved(y)
        self.w = None if data.w is None else moved(data.w)
        self.bad: Array = np.empty(0, np.int64)  # rows with invalid labels
        if data.classes:
            outside = ((y < 0) | (y >= data.classes)) & (y != data.ignored)
            self.bad = np.flatnonzero(outside)


_data: weakref.WeakKeyDictionary[Dataset, DeviceData] = weakref.WeakKeyDictionary()


def data_of(data: Dataset, stream: Any) -> DeviceData:
    """A data set on the device; it stays there as long as the Dataset lives."""
    found = _data.get(data)
    if found is None:
        found = _data[data] = DeviceData(data, stream)
    return found
