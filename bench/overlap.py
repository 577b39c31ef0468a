"""Whether it pays to all-reduce the gradients of the last layers while the first layers' backward runs.

    mpiexec -n 2 python bench/overlap.py [--nets deep,wide] [--rounds 30]

A step's program stops after the gradients of each linear layer, where that layer's all-reduce begins
without waiting (MPI_Iallreduce); the end waits for all. In turn with it, in the same run: one all-reduce
after the whole gradient, as the trainer makes it; and a thread that makes the all-reduces of layers one by
one while the gradient goes on. Each step begins with a barrier; figures are medians of the slower rank
(`--quantile 0.1` on a busy machine).
With MPIR_CVAR_ASYNC_PROGRESS=1, MPICH has a thread of its own that goes on with all-reduces.
docs/scaling.md has the figures.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
from itertools import pairwise
from typing import Any

os.environ.setdefault("FASTNET_NUM_THREADS", "1")

import numpy as np
from mpi4py import MPI

import fastnet as fn
from fastnet.backends.steps import Steps
from fastnet.plan.instructions import control
from fastnet.plan.records import HOST, SEGMENT
from scaling import LATENCY, MEASURED, NETS, dense, exchange_seconds, numbers_of, step_seconds

Bucket = slice  # of the gradients of all parameters


class Gradient:
    """The gradient of this rank's rows of a net, in segments that end with each layer's gradients."""

    def __init__(self, widths: list[int], rows: int) -> None:
        rng = np.random.default_rng(0)
        model = fn.Sequential(*dense(*widths), seed=0)
        loss = fn.CrossEntropyLoss()
        x = rng.normal(size=(rows, widths[0])).astype(np.float32)
        data = model.data(loss, x, rng.integers(0, widths[-1], rows), "X", "y", None)
        self.executor = model.training_executor(data, rows, loss, False)
        self.executor.load(data, Steps(np.arange(rows), np.array([0, rows]), 0, 0), None)
        self.grads = self.executor.storage.flat("grads")
        self.plain = self.executor.plan.step
        self.cut, self.buckets = self._cut()
        self.executor.backend.prepare(self.cut)

    def _cut(self) -> tuple[np.ndarray, list[Bucket]]:
        """The program with a stop behind each layer's gradients, and these in the order of the stops."""
        # By offset in the gradients, the last instruction that writes there.
        last: dict[int, int] = {}
        for i, instruction in enumerate(self.plain):
            for segment, offset in zip(instruction["segment"], instruction["offset"], strict=True):
                if segment == SEGMENT["grads"] and instruction["kernel"] >= 0:
                    last[int(offset) // self.grads.itemsize] = i
        begins, ends = sorted(last), {}
        for begin, end in zip(begins, [*begins[1:], len(self.grads)], strict=True):
            ends.setdefault(last[begin], []).append((begin, end))
        program, buckets = [], []
        for i in range(len(self.plain)):
            program.append(self.plain[i : i + 1])
            if i in ends:
                program.append(control("host"))
                buckets.append(slice(min(b for b, _ in ends[i]), max(e for _, e in ends[i])))
        return np.concatenate(program), buckets

    def run(self, program: np.ndarray, stopped: Any = None) -> None:
        """Compute the gradient; stopped: called with the number of each stop."""
        executor = self.executor
        field = executor._train_field
        field["program"][0], field["count"][0] = program.ctypes.data, len(program)
        field["before_update"][0] = len(program)
        field["done"][0] = field["at"][0] = 0
        stop = 0
        while True:
            executor.backend.train(executor.begin(1))
            if int(field["status"][0]) != HOST:
                break
            stopped(stop)
            stop += 1
        executor.ended()
        executor.outcome()


def measure(
    widths: list[int], rows: int, rounds: int, quantile: float, comm: Any
) -> dict[str, float]:
    """The seconds of the gradient alone, and of each way of adding it up."""
    made = Gradient(widths, rows)
    total = np.empty_like(made.grads)
    own = comm.Dup()  # of the thread
    jobs: queue.Queue[Bucket | None] = queue.Queue()

    def work() -> None:
        while (bucket := jobs.get()) is not None:
            own.Allreduce(made.grads[bucket], total[bucket])
            jobs.task_done()

    thread = threading.Thread(target=work)
    thread.start()

    def alone() -> None:
        made.run(made.plain)

    def after() -> None:
        made.run(made.plain)
        comm.Allreduce(made.grads, total)

    def overlapped() -> None:
        requests: list[Any] = []

        def stopped(number: int) -> None:
            bucket = made.buckets[number]
            requests.append(comm.Iallreduce(made.grads[bucket], total[bucket]))
            MPI.Request.Testall(requests)

        made.run(made.cut, stopped)
        MPI.Request.Waitall(requests)

    def by_thread() -> None:
        made.run(made.cut, lambda number: jobs.put(made.buckets[number]))
        jobs.join()

    ways = {"gradient": alone, "after": after, "overlapped": overlapped, "thread": by_thread}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    expected = None
    for _ in range(rounds + 2):
        for name, way in ways.items():
            total[:] = 0
            comm.Barrier()
            begun = time.perf_counter()
            way()
            took = np.array([time.perf_counter() - begun])
            slower = np.empty_like(took)
            comm.Allreduce(took, slower, MPI.MAX)
            seconds[name].append(float(slower[0]))
            if name == "after":
                expected = total.copy()
            elif name != "gradient":
                assert expected is not None
                np.testing.assert_allclose(total, expected, rtol=1e-4, atol=1e-6)
    jobs.put(None)
    thread.join()
    return {name: float(np.quantile(each[2:], quantile)) for name, each in seconds.items()}


def predicted(name: str, nodes: int, gbit: int, times: float) -> float:
    """How many times as fast a step is with overlapping exchanges, by docs/scaling.md's model.

    times: of the usual minibatch. The network works by itself; the all-reduce of a layer begins when both
    its gradients and the network are ready. A layer takes as long as its products: one for the forward,
    one for the weights' gradients and, but for the first layer, one for the inputs'.
    """
    widths = NETS[name][0]
    layers = [a * b + b for a, b in pairwise(widths)]
    rows, gradient, update = MEASURED[name]
    part = max(gradient * times / nodes, gradient / rows)
    product = part / (3 * sum(layers) - layers[0])  # of one parameter
    now, free = product * sum(layers), 0.0
    for i, count in reversed(list(enumerate(layers))):
        now += product * count  # the weights' gradients come first
        free = max(free, now) + exchange_seconds(nodes, count, gbit)
        now += product * count * (i > 0)
    return step_seconds(name, nodes, gbit, times) / (max(now, free) + update)


def predict() -> None:
    """Print what docs/scaling.md says of networks that exchange by themselves."""
    print("| net | nodes | " + " | ".join(f"{gbit} Gbit/s" for gbit in LATENCY) + " |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (_, gradient, update) in MEASURED.items():
        for nodes in (2, 10, 100):
            cells = []
            for gbit in LATENCY:
                rest = exchange_seconds(nodes, numbers_of(NETS[name][0]), gbit) + update
                half = max(1.0, rest * nodes / gradient)  # gradient as long as the rest
                usual, large = (predicted(name, nodes, gbit, times) for times in (1.0, half))
                cells.append(f"{usual:.2f} ({large:.2f})")
            print(f"| {name} | {nodes} | {' | '.join(cells)} |")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", default="deep,wide")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--quantile", type=float, default=0.5)
    parser.add_argument(
        "--predict", action="store_true", help="what the model says, measuring nothing"
    )
    given = parser.parse_args()
    if given.predict:
        predict()
        return
    comm = MPI.COMM_WORLD
    for name in given.nets.split(","):
        widths, batches = NETS[name]
        for batch in batches:
            found = measure(widths, batch // comm.Get_size(), given.rounds, given.quantile, comm)
            if comm.Get_rank() == 0:
                texts = [f"{1e3 * each:.2f} ms" for each in found.values()]
                print(f"| {name} | {batch} | {' | '.join(texts)} |")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
