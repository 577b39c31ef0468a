"""Cost against size: seconds per flop of a training step before and after a doubling."""

from __future__ import annotations

import itertools
from typing import Any

from contenders import training
from contenders.workloads import Workload
from measure import machine
from measure.timing import interleave


def net(width: int, depth: int, batch: int) -> Workload:
    """`depth` hidden layers of one width, which the inputs have too."""
    return Workload("cost", (width,) * (depth + 1) + (10,), batch, batches=2)


SMALL, LARGE = {"width": 16, "depth": 2, "batch": 16}, {"width": 256, "depth": 4, "batch": 256}


def measure(seconds: float) -> dict[str, Any]:
    """Each dimension doubled twice, from a net for which overhead counts and from a large one."""
    cases: dict[str, Any] = {}
    for regime, base in (("small", SMALL), ("large", LARGE)):
        sizes = [base] + [{**base, dim: base[dim] * by} for dim in base for by in (2, 4)]
        nets = {str(size): net(**size) for size in sizes}
        makers = {n: lambda w=w: training.FastnetChunk(w, backend()) for n, w in nets.items()}
        times = interleave({n: make() for n, make in makers.items()}, seconds)
        each = {n: [t / nets[n].flops for t in times[n]] for n in nets}
        for dim in base:
            chain = [{**base, dim: base[dim] * by} for by in (1, 2, 4)]
            for before, after in itertools.pairwise(chain):
                cases[f"{regime} net, {dim} {before[dim]} → {after[dim]}"] = {
                    "regime": regime,
                    "times": {"before": each[str(before)], "after": each[str(after)]},
                }
    return cases


def backend() -> str:
    """The one that is measured."""
    return "c" if "c" in machine.backends() else "reference"
