"""What a step on several ranks takes, and its parts, beside a bare all-reduce of the same bytes.

    mpiexec -n 2 python bench/scaling.py [--nets housing,mnist,deep,wide] [--seconds 3]

Each net trains on rank 0 alone and then on all ranks, one thread each, several times in turn; figures are
medians over steps (`--quantile 0.1` on a busy machine). `exchange` is what all ranks add to the step of
one, without waiting for a slower rank; `bare` is an all-reduce of as many bytes after each step.
docs/scaling.md has the figures, and the model of them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
import warnings
from itertools import pairwise
from typing import Any

os.environ.setdefault("FASTNET_NUM_THREADS", "1")

import numpy as np
from mpi4py import MPI

import fastnet as fn

Layers = list[Any]
QUANTILE = 0.5


def dense(*widths: int) -> Layers:
    """Linear layers with ReLU between them."""
    found: Layers = []
    for i, (a, b) in enumerate(pairwise(widths)):
        found += [fn.Linear(a, b), *([fn.ReLU()] if i < len(widths) - 2 else [])]
    return found


NETS: dict[str, tuple[list[int], list[int]]] = {  # widths, and sizes of the global minibatch
    "housing": ([8, 64, 64, 64, 1], [64, 1024, 16384]),
    "mnist": ([784, 128, 10], [32, 512, 4096]),
    "deep": ([784, 512, 512, 512, 10], [128, 1024]),
    "wide": ([1024, 4096, 4096, 1000], [256, 1024]),
}


class Timed:
    """A communicator that meets before each all-reduce of gradients, and keeps how long that takes."""

    def __init__(self, comm: Any, least: int) -> None:
        self.comm, self.least, self.waited = comm, least, 0.0
        self.Bcast, self.Get_rank, self.Get_size = comm.Bcast, comm.Get_rank, comm.Get_size

    def Allreduce(self, send: Any, receive: Any) -> None:  # noqa: N802
        """The sum, once all are there."""
        if send.size >= self.least:
            begun = time.perf_counter()
            self.comm.Barrier()
            self.waited += time.perf_counter() - begun
        self.comm.Allreduce(send, receive)


class Steps(fn.Callback):
    """The parts of each step."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.rows, self.last = comm, list[list[float]](), np.zeros(4)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any]) -> None:
        """Take the seconds since the last step."""
        run = self.trainer._fitting.run
        now = np.array([*run.seconds, self.comm.waited])
        self.comm.comm.Barrier()
        begun = time.perf_counter()
        self.comm.comm.Allreduce(run._vector.sent, run._vector.total)  # the same bytes once more
        self.rows.append([*(now - self.last), time.perf_counter() - begun])
        self.last = now


def numbers_of(widths: list[int]) -> int:
    """The number of parameters."""
    return sum(a * b + b for a, b in pairwise(widths))


def idle(comm: Any) -> None:
    """Meet without turning in circles, so that a rank alone has its core."""
    request = comm.Ibarrier()
    while not request.Test():
        time.sleep(0.01)


def fit(widths: list[int], batch: int, steps: int, comm: Any = None) -> tuple[float, Any]:
    """The median seconds of a step, and of its parts.

    These are the gradient, the exchange without waiting, the update, and a bare all-reduce of as many
    bytes.
    """
    rng = np.random.default_rng(0)
    X = rng.normal(size=(batch, widths[0])).astype(np.float32)
    regression = widths[-1] == 1
    y = X[:, :1].copy() if regression else rng.integers(0, widths[-1], batch)
    loss = fn.MSELoss() if regression else fn.CrossEntropyLoss()
    model = fn.Sequential(*dense(*widths), seed=0)
    timed = None if comm is None else Timed(comm, numbers_of(widths))
    trainer = fn.Trainer(model, loss, fn.Adam(1e-4), metrics={}, seed=0, comm=timed)
    if timed is None:
        trainer.fit(X, y, epochs=2, batch_size=batch, verbose=0)
        found, each = [], max(1, steps // 10)
        for _ in range(min(steps, 10)):
            begun = time.perf_counter()
            trainer.fit(X, y, epochs=each, batch_size=batch, verbose=0)
            found.append((time.perf_counter() - begun) / each)
        return float(np.quantile(found, QUANTILE)), None
    keeper = Steps(timed)
    trainer.fit(X, y, epochs=steps + 2, batch_size=batch, verbose=0, callbacks=[keeper])
    rows = np.array(keeper.rows)[2:]
    each = rows[:, 0], rows[:, 1] - rows[:, 3], rows[:, 2], rows[:, 4]
    parts = [float(np.quantile(part, QUANTILE)) for part in each]
    return float(np.quantile(rows[:, :3].sum(axis=1), QUANTILE)), parts


# What docs/scaling.md predicts from: rows of a minibatch, and on one core the seconds of its gradient and
# of an update (bench/RESULTS.md, of a quiet machine; updates as measured by this program).
MEASURED = {
    "housing": (64, 30e-6, 6e-6),
    "mnist": (32, 100e-6, 60e-6),
    "deep": (128, 6.07e-3, 430e-6),
    "wide": (256, 333e-3, 16e-3),
}
# Of networks by Gbit/s, the seconds that a message takes besides its bytes: TCP, and 100 Gbit/s with RDMA.
LATENCY = {1: 30e-6, 10: 20e-6, 100: 3e-6}
BOOKKEEPING = 20e-6  # of Python, in each step


def exchange_seconds(nodes: int, count: int, gbit: int) -> float:
    """The seconds of an all-reduce of so many float32 by a reduce-scatter and an all-gather."""
    if nodes == 1:
        return 0.0
    messages, share = 2 * math.ceil(math.log2(nodes)), 2 * (nodes - 1) / nodes
    return BOOKKEEPING + messages * LATENCY[gbit] + share * 4 * count * 8 / (gbit * 1e9)


def step_seconds(name: str, nodes: int, gbit: int, times: float = 1.0) -> float:
    """The seconds of a step on so many nodes, of a minibatch that is `times` as large as usual."""
    rows, gradient, update = MEASURED[name]
    part = max(gradient * times / nodes, gradient / rows)  # a row cannot be divided
    return part + exchange_seconds(nodes, numbers_of(NETS[name][0]), gbit) + update


def predict() -> None:
    """Print what docs/scaling.md says of many nodes."""
    print("| net | nodes | " + " | ".join(f"{gbit} Gbit/s" for gbit in LATENCY) + " |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (rows, gradient, update) in MEASURED.items():
        for nodes in (10, 100, 1000):
            cells = []
            for gbit in LATENCY:
                speed = (gradient + update) / step_seconds(name, nodes, gbit)
                rest = exchange_seconds(nodes, numbers_of(NETS[name][0]), gbit) + update
                half = math.ceil(rest * nodes / (gradient / rows))  # gradient as long as the rest
                cells.append(f"{speed:.2g}× ({half:,})")
            print(f"| {name} | {nodes:,} | {' | '.join(cells)} |")


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nets", default=",".join(NETS))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quantile", type=float, default=QUANTILE)
    parser.add_argument(
        "--predict", action="store_true", help="the table of many nodes, measuring nothing"
    )
    given = parser.parse_args()
    if given.predict:
        predict()
        return
    globals()["QUANTILE"] = given.quantile
    warnings.simplefilter("ignore")
    comm = MPI.COMM_WORLD
    first = comm.Get_rank() == 0
    if first:
        print(MPI.Get_library_version().splitlines()[0].strip(), "ranks", comm.Get_size())
        columns = "net batch one all one/all gradient exchange update bare exchange/bare"
        print(f"| {' | '.join(columns.split())} |")
    for name in given.nets.split(","):
        widths, batches = NETS[name]
        for batch in batches:
            rows = []
            for _ in range(given.repeats):
                alone = np.zeros(1)
                if first:
                    once, _ = fit(widths, batch, 2)
                    steps = int(max(3, min(2000, given.seconds / max(once, 1e-6))))
                    alone[0] = fit(widths, batch, steps)[0]
                idle(comm)
                comm.Bcast(alone)
                steps = int(max(3, min(1000, given.seconds / alone[0])))
                both, parts = fit(widths, batch, steps, comm)
                rows.append([alone[0], both, *parts])
            alone_, both, gradient, exchange, update, least = np.quantile(
                np.array(rows), QUANTILE, axis=0
            )
            if first:
                each = [alone_, both, gradient, exchange, update, least]
                texts = [f"{1e6 * part:,.0f} µs" for part in each]
                print(
                    f"| {name} | {batch} | {texts[0]} | {texts[1]} | {alone_ / both:.2f} | "
                    f"{' | '.join(texts[2:])} | {exchange / least:.2f} |"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
