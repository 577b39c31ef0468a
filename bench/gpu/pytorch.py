"""PyTorch on a GPU: eagerly, and as CUDA graphs of whole steps.

On the device "cpu" the same code runs without graphs, for tests: what a graph would replay is done anew.
"""

from __future__ import annotations

import copy
import gc
import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

from contenders import peers
from contenders.workloads import LR, SEED, Workload

WARMUPS = 3  # before a capture, as PyTorch's documentation has it


def captured(work: Callable[[], Any], device: str) -> Callable[[], Any]:
    """What replays all that `work` launches, after some runs of it; `work` itself off a GPU."""
    import torch

    if device != "cuda":
        for _ in range(WARMUPS):
            work()
        return work
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(WARMUPS):
            work()
    torch.cuda.current_stream().wait_stream(beside)
    gc.collect()  # what is freed while a graph is captured would spoil it
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class TorchGraph(peers.Torch):
    """PyTorch's steps as a CUDA graph: forward, loss, backward and fused Adam.

    One step, into which a minibatch is copied before each replay, as PyTorch's documentation shows it;
    or, by `epoch`, all steps of an epoch, each with its own minibatch in place: one replay for all.
    """

    def __init__(self, workload: Workload, device: str, epoch: bool = False) -> None:
        super().__init__(workload, fused=True, device=device, capturable=True)
        first = [tensor.clone() for tensor in self.minibatches[0]]
        self.inputs = self.minibatches if epoch else [first]
        self.quantum = len(self.inputs)
        start = copy.deepcopy(self.net.state_dict())
        self.replay = captured(self._steps, device)
        self._restart(start)

    def _steps(self) -> None:
        self.losses = [self.step(x, y) for x, y in self.inputs]

    def _restart(self, start: dict[str, Any]) -> None:
        """Undo the warming up, in place, as a graph knows its tensors by their addresses."""
        for name, tensor in self.net.state_dict().items():
            tensor.copy_(start[name])
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()

    def run(self, steps: int) -> Any:
        """Replays; returns the losses."""
        import torch

        losses = []
        for _ in range(steps // self.quantum):
            if self.quantum == 1:
                now = self.minibatches[self.taken % len(self.minibatches)]
                for tensor, new in zip(self.inputs[0], now, strict=True):
                    tensor.copy_(new)
            self.replay()
            losses.append(torch.stack(self.losses))
            self.taken += self.quantum
        self.wait()
        return torch.cat(losses)


class Update:
    """Fused Adam's step on one flat tensor."""

    quantum = 1

    def __init__(self, size: int, device: str) -> None:
        import torch

        torch.manual_seed(SEED)
        tensor = torch.nn.Parameter(torch.randn(size, device=device))
        tensor.grad = torch.randn(size, device=device)
        self.optimizer = torch.optim.Adam([tensor], lr=LR, fused=True)
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def run(self, steps: int) -> None:
        """So many steps."""
        for _ in range(steps):
            self.optimizer.step()
        self.wait()


class Product:
    """A product of two large matrices."""

    quantum = 1

    def __init__(self, size: int, device: str) -> None:
        import torch

        torch.manual_seed(SEED)
        self.a, self.b, self.c = (torch.randn(size, size, device=device) for _ in range(3))
        self.product = torch.mm
        self.wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def run(self, count: int) -> None:
        """So many times."""
        for _ in range(count):
            self.product(self.a, self.b, out=self.c)
        self.wait()


def rounds_inputs(device: str) -> bool:
    """Whether float32's 1 + 2⁻¹² loses its last bits in a product, as it does in TF32."""
    import torch

    x = torch.full((256, 256), 1 + 2.0**-12, device=device)
    return not torch.equal(x @ torch.eye(256, device=device), x)


def reason(device: str) -> str | None:
    """Why PyTorch does not take part, or None."""
    if not importlib.util.find_spec("torch"):
        return "PyTorch is not installed"
    import torch

    torch.set_float32_matmul_precision("highest")  # no TF32
    if device == "cuda" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU"
    return None


def available(device: str) -> dict[str, Callable[[Workload], Any]]:
    """PyTorch's ways of training, as functions that make their contenders."""
    if reason(device):
        return {}
    return {
        "PyTorch eager": partial(peers.Torch, device=device),
        "PyTorch eager fused": partial(peers.Torch, fused=True, device=device),
        "PyTorch graph": partial(TorchGraph, device=device),
        "PyTorch graph of an epoch": partial(TorchGraph, device=device, epoch=True),
    }
