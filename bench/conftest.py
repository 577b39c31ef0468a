"""What the suites share: one pinned core, and times per step or per kernel call."""

from __future__ import annotations

from measure import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import time
from collections.abc import Callable
from typing import Any

import pytest

from measure import timing

_TEST_SECONDS = 0.5
_count = 1


def seconds_per_item() -> float:
    """The clock of the suites: seconds over the number of items that one call carries out."""
    return time.perf_counter() / _count


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--wide`, for the net whose steps take tenths of a second."""
    parser.addoption("--wide", action="store_true", help="the wide net too: minutes")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What has no clock of its own is timed by that one."""
    for item in items:
        if not item.get_closest_marker("benchmark"):
            item.add_marker(pytest.mark.benchmark(timer=seconds_per_item))


@pytest.fixture
def timed(benchmark: Any) -> Callable[..., None]:
    """Time `run(count)`, which carries out `count` items in one go, per item."""

    def measure(run: Callable[[int], Any], group: str, quantum: int = 1) -> None:
        global _count
        benchmark.group = group
        if benchmark.disabled:  # a smoke test
            benchmark.pedantic(run, args=(quantum,))
            return
        _count, seconds = timing.calibrate(run, quantum)
        benchmark.extra_info["items_per_call"] = _count
        rounds = max(5, min(50, int(_TEST_SECONDS / seconds)))
        benchmark.pedantic(run, args=(_count,), rounds=rounds, warmup_rounds=1)

    return measure
