"""What happens once, in fresh processes: imports and first steps, in seconds; peak memory, in bytes."""

from __future__ import annotations

from typing import Any

import pytest

from suites import cold

_sum = 0.0


def reported() -> float:
    """A clock that goes by what the fresh processes say."""
    return _sum


@pytest.mark.benchmark(timer=reported)
@pytest.mark.parametrize(
    ("what", "who"), [(what, who) for what, scripts in cold.SCRIPTS.items() for who in scripts()]
)
def bench_cold(what: str, who: str, benchmark: Any):
    """One process."""
    script = cold.SCRIPTS[what]()[who]

    def run() -> None:
        global _sum
        _sum += cold.fresh(script)

    benchmark.group = what if what != "memory" else "memory (1 s stands for 1 byte)"
    benchmark.pedantic(run, rounds=1 if benchmark.disabled or what == "memory" else 5)
