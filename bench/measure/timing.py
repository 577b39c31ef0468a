"""Interleaved measurement: contenders take turns, so that what disturbs one disturbs all."""

from __future__ import annotations

import gc
import math
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

TURN_SECONDS = 0.02  # of one turn, about
MAX_COUNT = 20_000  # of steps in one turn
MIN_ROUNDS = 7
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "ns": 1e9}

Times = dict[str, list[float]]


_discounted = 0.0


def clock() -> float:
    """Seconds, without those that do not count."""
    return time.perf_counter() - _discounted


def discount(seconds: float) -> None:
    """So many of the seconds since the turn began do not count."""
    global _discounted
    _discounted += seconds


@contextmanager
def aside() -> Iterator[None]:
    """What is done within does not count, such as starting over between two fits."""
    begin = time.perf_counter()
    yield
    discount(time.perf_counter() - begin)


class Contender(Protocol):
    """Runs training steps of one workload; `quantum`: steps come in multiples of it."""

    quantum: int

    def run(self, steps: int, /) -> Any:
        """Carry out `steps` steps; returns their losses where the contender can tell."""


def calibrate(run: Callable[[int], Any], quantum: int) -> tuple[int, float]:
    """Warm `run(count)` up; the count for a turn, a multiple of quantum, and the seconds it takes."""
    run(quantum)  # compiles, allocates
    count, taken = quantum, 0.0
    for _ in range(12):
        begin = clock()
        run(count)
        taken = clock() - begin
        if taken >= TURN_SECONDS / 4 or count >= MAX_COUNT:
            break
        count *= 4 if taken < TURN_SECONDS / 16 else 2
    each = max(taken, 1e-9) / count
    count = quantum * max(1, math.ceil(min(MAX_COUNT, TURN_SECONDS / each) / quantum))
    return count, count * each


def warm(
    makers: Mapping[str, Callable[[], Contender]],
) -> tuple[dict[str, Contender], dict[str, str]]:
    """Contenders that have run once, and why each peer that could not is left out."""
    ready: dict[str, Contender] = {}
    failed: dict[str, str] = {}
    for name, make in makers.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the peers' own
                contender = make()
                contender.run(contender.quantum)
        except Exception as error:
            if name.startswith("fastnet"):
                raise
            failed[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"
        else:
            ready[name] = contender
    return ready, failed


def interleave(
    contenders: Mapping[str, Contender], seconds: float, min_rounds: int = MIN_ROUNDS
) -> Times:
    """Seconds per step of each contender in each round, for about `seconds` in all.

    Each round starts with another contender.
    """
    steps = {name: calibrate(c.run, c.quantum)[0] for name, c in contenders.items()}
    times: Times = {name: [] for name in contenders}
    names = list(contenders)
    gc.collect()
    gc.freeze()  # what is there stays; between turns only what they leave behind is looked through
    gc.disable()
    try:
        begin = time.perf_counter()
        while len(times[names[0]]) < min_rounds or time.perf_counter() - begin < seconds:
            for name in names:
                start = clock()
                contenders[name].run(steps[name])
                times[name].append((clock() - start) / steps[name])
            names = names[1:] + names[:1]
            gc.collect()
    finally:
        gc.unfreeze()
        gc.enable()
    return times


def median(seconds: list[float]) -> float:
    """The median over the rounds."""
    return statistics.median(seconds)


def ratio(times: Times, slow: str, fast: str) -> float:
    """How many times as long `slow` takes as `fast`: the median over the rounds of their ratios."""
    return statistics.median(s / f for s, f in zip(times[slow], times[fast], strict=True))


def difference(times: Times, long: str, short: str) -> float:
    """By how many seconds `long` takes longer than `short`: the median over the rounds."""
    return statistics.median(m - f for m, f in zip(times[long], times[short], strict=True))


def undisturbed_ratio(times: Times, slow: str, fast: str) -> float:
    """The same of what both take while others leave the machine alone: their tenth percentiles."""
    quick = {name: sorted(times[name])[len(times[name]) // 10] for name in (slow, fast)}
    return quick[slow] / quick[fast]


def duration(seconds: float) -> str:
    """A time with three digits, in the unit that suits it."""
    unit, scale = next((u, s) for u, s in UNITS.items() if seconds * s >= 1 or u == "ns")
    return (
        f"{seconds * scale:.3g} {unit}"
        if seconds * scale < 100
        else f"{seconds * scale:,.0f} {unit}"
    )


def microseconds(seconds: float) -> str:
    """A time in µs with three digits."""
    us = seconds * 1e6
    return f"{us:,.0f}" if us >= 100 else f"{us:.3g}"
