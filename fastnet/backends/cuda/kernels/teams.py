"""Teams: neighbouring threads of a block that work on one row or column, and add up what they found.

A team is (room, place, lane, lanes): float64 of shared memory, one for each of the block's threads, where
this thread's lies, its number in the team, and how many they are, a power of two. Sums are taken in
one order, which depends on sizes alone.
"""

from __future__ import annotations

from typing import Any

from fastnet.backends.cuda.device import device, syncthreads


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
