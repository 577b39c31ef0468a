"""One thread against two, in a process that may use two cores: prints JSON for `run.py`.

FASTNET_BENCH_CORES=2 python bench/suites/two_threads.py SECONDS WORKLOAD …
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/, as for a script there

from measure import pin  # isort: skip  (before NumPy loads)

import json
from typing import Any

import fastnet as fn
from contenders import training
from contenders.workloads import WORKLOADS, Workload
from measure import machine
from measure.timing import interleave


class Threaded(training.FastnetChunk):
    """fastnet's C backend with at most so many threads."""

    def __init__(self, workload: Workload, threads: int) -> None:
        super().__init__(workload, "c")
        self.threads = threads

    def run(self, steps: int) -> Any:
        """A chunk of steps."""
        with fn.threads(self.threads):
            return super().run(steps)


def main() -> None:
    """Measure, print."""
    seconds, names = float(sys.argv[1]), sys.argv[2:]
    reason = None
    if not hasattr(fn, "threads"):
        reason = "this fastnet has no threads"
    elif "c" not in machine.backends():
        reason = "the C backend is not available"
    elif pin.CORES is not None and len(pin.CORES) < 2:
        reason = "there is one core only"
    if reason:
        print(json.dumps({"left_out": reason}))
        return
    cases = {}
    for name in names:
        makers = {str(n): Threaded(WORKLOADS[name], n) for n in (1, 2)}
        cases[name] = {"title": WORKLOADS[name].title, "times": interleave(makers, seconds)}
    print(json.dumps(cases))


if __name__ == "__main__":
    main()
