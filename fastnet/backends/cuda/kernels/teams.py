"""Teams: neighbouring threads of a block that work on one row or column, and add up what they found.

A team is (room, place, lane, lanes): float64 of shared memory, one for each of the block's threads, where
this thread's lies, its number in the team, and how many they are, a power of two. Sums are taken in
one order, which depends on sizes alone.

Of very many terms each thread keeps a running sum, a pair: the sum, and what its additions rounded off.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import device, syncthreads
from fastnet.backends.cuda.elementary import is_single

EMPTY = 0.0, 0.0  # a running sum of nothing


@device
def plus(running: Any, term: Any) -> Any:
    """A running sum and one more term. What float64 rounds off does not matter where terms are float32."""
    total, lost = running
    wide = np.float64(term)
    new = total + wide
    if is_single(term):
        return new, lost
    part = new - total
    return new, lost + ((total - (new - part)) + (wide - part))


@device
def team_sum(team: Any, value: Any) -> Any:
    """The sum of the team's values, for each of them; all of the block's threads must come here."""
    room, place, lane, lanes = team
    room[place] = value
    syncthreads()
    half = lanes >> 1
    while half > 0:
        if lane < half:
            room[place] += room[place + half]
        syncthreads()
        half >>= 1
    total = room[place - lane]
    syncthreads()
    return total


@device
def team_total(team: Any, running: Any) -> Any:
    """The same of running sums; where one is infinite, what it lost is NaN."""
    total, lost = running
    return team_sum(team, total if math.isnan(lost) else total + lost)


@device
def team_max(team: Any, value: Any) -> Any:
    """The largest of the team's values, none of which may be NaN."""
    room, place, lane, lanes = team
    room[place] = value
    syncthreads()
    half = lanes >> 1
    while half > 0:
        if lane < half and room[place + half] > room[place]:
            room[place] = room[place + half]
        syncthreads()
        half >>= 1
    top = room[place - lane]
    syncthreads()
    return top
