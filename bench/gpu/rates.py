"""What a GPU can do at best, and fastnet's optimizer beside it: products, copies, updates.

The least time of a step is made of these as that on a core is (`roofline.py`): the flops of products over
the rate of the fastest large product, all else as bytes over the bandwidth of a copy, bytes read and
bytes written both counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from contenders import roofline
from contenders.workloads import LR, SEED, Workload
from fastnet.backends.cuda.device import SIMULATOR, cuda
from fastnet.backends.cuda.gemm import gemm
from fastnet.backends.cuda.memory import segments_of
from fastnet.backends.cuda.programs import Program
from gpu import pytorch
from measure.timing import calibrate

PRODUCT = 8 if SIMULATOR else 8192  # rows and columns of what is multiplied
COPY = 1 << 10 if SIMULATOR else 1 << 29  # bytes of what is copied from memory to memory
PARAMETERS = 64 if SIMULATOR else 1 << 25  # of one flat vector


def l2_bytes() -> int:
    """The size of the cache that all multiprocessors share."""
    return 512 if SIMULATOR else int(cuda.get_current_device().L2_CACHE_SIZE)


class Copy:
    """A copy from one place on the device to another."""

    quantum = 1

    def __init__(self, nbytes: int) -> None:
        values = np.random.default_rng(SEED).integers(256, size=nbytes, dtype=np.uint8)
        self.queue = cuda.stream()
        self.source, self.target = cuda.to_device(values), cuda.device_array(nbytes, np.uint8)
        self.amount = 2 * nbytes

    def run(self, count: int) -> None:
        """So many times."""
        for _ in range(count):
            self.target.copy_to_device(self.source, stream=self.queue)
        self.queue.synchronize()


class Product:
    """A product of two large matrices, as fastnet's linear layers make it."""

    quantum = 1

    def __init__(self, size: int) -> None:
        values = np.random.default_rng(SEED).standard_normal((3, size, size), np.float32)
        self.queue = cuda.stream()
        self.a, self.b, self.c = (cuda.to_device(each) for each in values)

    def run(self, count: int) -> None:
        """So many times."""
        for _ in range(count):
            gemm(self.queue, self.c, self.a, self.b)
        self.queue.synchronize()


class Update:
    """fastnet's Adam on one flat vector on the device, its numbers there too, as within a chunk."""

    quantum = 1

    def __init__(self, size: int) -> None:
        self.model = fn.Sequential(fn.Linear(size, 1, bias=False), backend="cuda", seed=SEED)
        storage = self.model.bind()
        grads = storage.flat("grads")
        grads[...] = np.random.default_rng(SEED).standard_normal(grads.shape, np.float32)
        state = self.model.optimizer_state(fn.Adam(lr=LR))
        hyper, self.memory = state.hyper(1)[0].astype(np.float64), segments_of(storage)
        with self.memory.call(state.rule.segment):  # copies what the host has
            blocks = {**storage.segments, "state": state.rule.segment}
            devices = {name: self.memory.block(host).device for name, host in blocks.items()}
        devices["hyper"] = cuda.to_device(hyper.reshape(-1).view(np.uint8))
        self.program = Program(state.rule.program, devices, 1, hyper.shape[1])
        self.kept = state

    def run(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.program.launch(self.memory.stream)
        self.memory.synchronize()


def rounds_inputs() -> bool:
    """Whether a product of fastnet's rounds its inputs to TF32; as `pytorch.rounds_inputs`."""
    size, queue = (4 if SIMULATOR else 256), cuda.stream()
    x = np.full((size, size), 1 + 2.0**-12, np.float32)
    c = cuda.device_array(x.shape, x.dtype)
    gemm(queue, c, cuda.to_device(x), cuda.to_device(np.eye(size, dtype=np.float32)))
    queue.synchronize()
    return not np.array_equal(c.copy_to_host(), x)


def seconds(contender: Any) -> float:
    """Of one unit of its work."""
    count, taken = calibrate(contender.run, 1)
    return taken / count


class Rates:
    """The contenders whose times are the rates, made once for all workloads."""

    def __init__(self, device: str) -> None:
        products: list[Any] = [Product(PRODUCT)]
        if not pytorch.reason(device):
            products.append(pytorch.Product(PRODUCT, device))
        self.product = min(products, key=seconds)
        self.l2 = l2_bytes()
        self.copy, self.copy_in_l2 = Copy(COPY), Copy(self.l2 // 4)

    def floors(self, workload: Workload) -> dict[str, roofline.Floor]:
        """The floors of a training step, by name.

        What fits in half of the L2 cache, as the copy in it does, is taken to stay there; roots and
        random words are left out.
        """
        found = []
        for work in roofline.work(workload):
            if work.kind == "flops":
                units = work.amount / (2 * PRODUCT**3)
                found.append(roofline.Floor(work.what, units, self.product.run))
            if work.kind == "bytes":
                copy = self.copy_in_l2 if work.working_set <= self.l2 / 2 else self.copy
                found.append(roofline.Floor(work.what, work.amount / copy.amount, copy.run))
        return roofline.named(found)
