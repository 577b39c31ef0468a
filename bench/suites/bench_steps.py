"""Whole training steps: each workload on each backend and in each peer, seconds per step."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from contenders import peers, training
from contenders.loops import LOOPS
from contenders.workloads import SLOW, WORKLOADS
from measure import machine, timing

MAKERS: dict[str, Callable[..., timing.Contender]] = {
    **training.fastnets(machine.backends()),
    **{
        f"{way}, {name}": lambda workload, name=name, kind=kind: kind(workload, name)
        for name in machine.backends()
        for way, kind in LOOPS.items()
    },
    **peers.available(),
}


@pytest.mark.parametrize("who", MAKERS)
@pytest.mark.parametrize("name", WORKLOADS)
def bench_step(name: str, who: str, timed: Callable[..., None], request: pytest.FixtureRequest):
    """One training step."""
    if name in SLOW and not request.config.getoption("--wide"):
        pytest.skip("slow: --wide measures it")
    workload = WORKLOADS[name]
    if (
        who == "PyTorch compiled"
        and request.config.getoption("--benchmark-disable")
        and name != "xor"
    ):
        pytest.skip("compiles for long")
    ready, failed = timing.warm({who: lambda: MAKERS[who](workload)})
    if who in failed:
        pytest.skip(failed[who])
    contender = ready[who]
    timed(contender.run, group=workload.title, quantum=contender.quantum)
