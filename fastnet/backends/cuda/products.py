"""Runners of plans of products on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet.backends.cuda.executor import CudaExecutor
from fastnet.backends.cuda.memory import empty, put
from fastnet.backends.cuda.programs import Control
from fastnet.backends.products import NUMBERS, Directed, Directions
from fastnet.op import Array
from fastnet.parameter import Parameter
from fastnet.plan.segments import Storage


class CudaRunner(Directions, CudaExecutor):
    """Runs a plan of products on the device; the interface of `fastnet.backends.products.Runner`.

    Direction, product and running statistics are copied for each product; the model's own are not touched.
    """

    def __init__(self, products: Any, storage: Storage, names: Mapping[str, Parameter]) -> None:
        super().__init__(products.plan, storage)
        self.products, self._rows = products, 0
        self.use(NUMBERS, products.derived, products.objects, products.scheduled)
        self._direct(Directed(storage), names)
        for name in ("state", "grads", "buffers"):
            self._own[name] = empty((self.directed.segments[name].nbytes,), np.uint8)
        plan = products.plan
        for name, nbytes in (("y", products.target_bytes), ("w", plan.dtype.itemsize)):
            self._own[name] = empty((plan.max_rows * nbytes,), np.uint8)

    def _put(self, name: str, host: Array) -> None:
        raw = host.reshape(-1).view(np.uint8)
        if raw.size:
            put(self._own[name][: raw.size], raw, self.stream)

    def _run(self, number: int, rows: int, *, accumulate: bool = False) -> None:
        """Run the forward (0) or the products (1), which change nothing of the model."""
        for part in self.programs(rows)[number]:
            if isinstance(part, Control):
                self.call_python(part, rows, *self._counter, accumulate)
            else:
                self._count(part)
                part.launch(self.stream, accumulate)

    def linearize(self, x: Array, y: Array | None, w: Array | None, seed: int, step: int) -> None:
        """See Runner.linearize; the arrays are copied."""
        self._rows = len(x)
        self.memory.download()
        self.directed.start()
        with self.memory.call():
            for name, array in (("y", y), ("w", w)):
                if array is not None:
                    self._put(name, array)
            self._put("buffers", self.directed.segments["buffers"])
            self._put("state", self.directed.segments["state"])
            self._put_x(x)
            self._forward(len(x), seed, step)
            self.memory.synchronize()

    def move_x(self, dx: Array) -> Array:
        """See Runner.move_x."""
        given = np.ascontiguousarray(dx, self.plan.dtype)
        place = self.place(self.products.dx, given.shape, given.dtype)
        put(place, given, self.stream)
        return given

    def product(self) -> Array:
        """See Runner.product."""
        with self.memory.call():
            self._put("state", self.directed.segments["state"])
            self.result.fill(0)
            self._put("grads", self.directed.segments["grads"])
            self._run(1, self._rows)
            host = self.directed.segments["grads"]
            if host.size:
                self._own["grads"].copy_to_host(host, stream=self.stream)
            self.memory.synchronize()
        return self.result

    def loss(self) -> float:
        """See Runner.loss."""
        return float(self.at(self.plan.loss, (1,), np.float64)[0])
