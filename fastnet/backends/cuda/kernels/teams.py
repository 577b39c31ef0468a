"""Teams: neighbouring threads of a block that share a row or column and add up their results.

A team is (shared, place, lane, lanes): float64 in shared memory for all threads of the block, the index of
this thread's element, its number in the team, and the number of threads in the team, a power of two. The
order of a sum depends on sizes alone.

For very many terms each thread keeps a running sum, which is a pair: the sum, and its rounding errors.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device, syncthreads
from fastnet.backends.cuda.elementary import is_single

EMPTY = 0.0, 0.0  # an empty running sum


@device
def plus(running: Any, term: Any) -> Any:
    """Add a term to a running sum; float32 terms need no rounding errors, as float64 sums them."""
    total, lost = running
    wide = np.float64(term)
    new = total + wide
    if is_single(term):
        return new, lost
    part = new - total
    return new, lost + ((total - (new - part)) + (wide - part))


@device
def team_sum(team: Any, value: Any) -> Any:
    """The sum of the team's values, for each thread; all threads of the block must call this."""
    shared, place, lane, lanes = team
    shared[place] = value
    syncthreads()
    half = lanes >> 1
    while half > 0:
        if lane < half:
            shared[place] += shared[place + half]
        syncthreads()
        half >>= 1
    total = shared[place - lane]
    syncthreads()
    return total


@device
def team_total(team: Any, running: Any) -> Any:
    """The same for running sums; rounding errors are NaN where a sum is infinite."""
    total, lost = running
    return team_sum(team, total if math.isnan(lost) else total + lost)


@device
def team_max(team: Any, value: Any) -> Any:
    """The maximum of the team's values, none of which may be NaN."""
    shared, place, lane, lanes = team
    shared[place] = value
    syncthreads()
    half = lanes >> 1
    while half > 0:
        if lane < half and shared[place + half] > shared[place]:
            shared[place] = shared[place + half]
        syncthreads()
        half >>= 1
    top = shared[place - lane]
    syncthreads()
    return top
