"""The speed that fastnet promises, measured: exits with 1 where a target is missed.

    python bench/targets.py [--seconds 5]

Each target is a ratio of times of whole training steps, the median over interleaved rounds on one
core, so that it holds on any machine, busy or not.
"""

from __future__ import annotations

import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import argparse
import statistics
import sys
from dataclasses import dataclass

import contenders
from measure import Times, interleave, microseconds, ratio
from workloads import WORKLOADS


@dataclass(frozen=True)
class Target:
    """A backend of fastnet is at least `least` times as fast as PyTorch eager on a workload."""

    workload: str
    backend: str
    least: float


TARGETS = (
    Target("xor", "c", 20),
    Target("housing", "c", 5),
    Target("xor", "numba", 20),
    Target("housing", "numba", 3),
)


def measure(name: str, seconds: float) -> Times:
    """Seconds per step of PyTorch and of the backends that have a target on this workload."""
    backends = [target.backend for target in TARGETS if target.workload == name]
    contenders.check_same_work(WORKLOADS[name], backends)
    makers = contenders.fastnets(backends) | {"PyTorch": contenders.Torch}
    return interleave({n: make(WORKLOADS[name]) for n, make in makers.items()}, seconds)


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5, help="for each workload")
    options = parser.parse_args()
    if "PyTorch" not in contenders.peers():
        parser.exit(2, "the targets are ratios to PyTorch: pip install '.[bench]'\n")
    names = dict.fromkeys(target.workload for target in TARGETS)
    results = {name: measure(name, options.seconds) for name in names}

    print("| workload | backend | µs per step | PyTorch | ratio | target | |")
    print("|---|---|---:|---:|---:|---:|---|")
    missed = 0
    for target in TARGETS:
        times, ours = results[target.workload], f"fastnet {target.backend}"
        got = ratio(times, "PyTorch", ours)
        met = got >= target.least
        missed += not met
        us = [microseconds(statistics.median(times[n])) for n in (ours, "PyTorch")]
        verdict = "met" if met else "MISSED"
        print(
            f"| {target.workload} | {target.backend} | {us[0]} | {us[1]} "
            f"| {got:.3g} | ≥ {target.least:g} | {verdict} |"
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
