"""Decorators that make kernels and launchers from the code for one element, row or column.

    @launcher
    @rows("y")
    def softmax_vjp(team, row, end, dx, dy, y):
        …

makes a kernel in which teams of threads loop over the rows of y, and the function that launches it. The
decorated function is a device function, whose first arguments say where it works:

- `each("y")`: (i, …) for every element of y; all tensors are flat;
- `cells("y")`: (row, column, …) for every element of y;
- `draws("y")`: (i, word, …) for every element of y and its random word; all tensors are flat;
- `rows("y")`: (team, row, end, …) for every row of y, where end is its length, or −1 for threads of a block
  without a row; these must take part in the team's sums too;
- `columns("y")`: (team, column, end, …) for every column of y, likewise.

It gets numbers that change from step to step as numbers; the loop reads them once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.backends.cuda.device import (
    BLOCKS,
    HIGHEST,
    SIMULATOR,
    THREADS,
    blocks_for,
    cuda,
    device,
    flat,
    kernel,
    launch,
)
from fastnet.backends.cuda.kernels.registry import Launcher, changing
from fastnet.backends.cuda.philox import counter, philox
from fastnet.op import KERNELS

_EACH = """
def {name}({arguments}):
    {read}
    for i in range(cuda.grid(1), {count}.size, cuda.gridsize(1)):
        body(i, {values})

def launcher(queue, {arguments}):
    if {count}.size > 0:
        launch(kernel, blocks_for({count}.size), THREADS, queue, {flat})
"""

_CELLS = """
def {name}({arguments}):
    {read}
    rows, columns = {count}.shape
    above, left = cuda.blockIdx.y * cuda.blockDim.y, cuda.blockIdx.x * cuda.blockDim.x
    down, over = cuda.gridDim.y * cuda.blockDim.y, cuda.gridDim.x * cuda.blockDim.x
    for row in range(above + cuda.threadIdx.y, rows, down):
        for column in range(left + cuda.threadIdx.x, columns, over):
            body(row, column, {values})

def launcher(queue, {arguments}):
    if {count}.size > 0:
        blocks, threads = tiles({count}.shape)
        launch(kernel, blocks, threads, queue, {arguments})
"""

_DRAWS = """
def {name}({arguments}):
    {read}
    key = counter(seed_now, stream, step_now)
    size = {count}.size
    for block in range(cuda.grid(1), (size + 63) // 64 * 16, cuda.gridsize(1)):
        w0, w1, w2, w3 = philox(block, key)
        first = (block >> 4) * 64 + (block & 15)
        for k in range(4):
            i = first + 16 * k
            if i < size:
                word = w0 if k == 0 else w1 if k == 1 else w2 if k == 2 else w3
                body(i, word, {values})

def launcher(queue, {arguments}):
    if {count}.size > 0:
        stream = np.uint64(stream)
        launch(kernel, blocks_for(-(-{count}.size // 4)), THREADS, queue, {flat})
"""

_ROWS = """
def {name}({arguments}):
    {read}
    shared = cuda.shared.array(THREADS, np.float64)
    rows, columns = {count}.shape
    lane, lanes, members = cuda.threadIdx.x, cuda.blockDim.x, cuda.blockDim.y
    team = (shared, cuda.threadIdx.y * lanes + lane, lane, lanes)
    for first in range(cuda.blockIdx.x * members, rows, cuda.gridDim.x * members):
        row = first + cuda.threadIdx.y
        body(team, row, columns if row < rows else -1, {values})

def launcher(queue, {arguments}):
    if {count}.size > 0:
        lanes = lanes_for({count}.shape[1])
        blocks = blocks_for({count}.shape[0], THREADS // lanes)
        launch(kernel, blocks, (lanes, THREADS // lanes), queue, {arguments})
"""

_COLUMNS = """
def {name}({arguments}):
    {read}
    shared = cuda.shared.array(THREADS, np.float64)
    rows, columns = {count}.shape
    lane, lanes, members = cuda.threadIdx.y, cuda.blockDim.y, cuda.blockDim.x
    team = (shared, cuda.threadIdx.x * lanes + lane, lane, lanes)
    for first in range(cuda.blockIdx.x * members, columns, cuda.gridDim.x * members):
        column = first + cuda.threadIdx.x
        body(team, column, rows if column < columns else -1, {values})

def launcher(queue, {arguments}):
    blocks = blocks_for({count}.shape[1], ACROSS)
    launch(kernel, blocks, (ACROSS, DOWN), queue, {arguments})
"""

# The columns of a block, whose elements in a row fill a sector of memory, and the threads for each column.
ACROSS = 2 if SIMULATOR else 8
DOWN = THREADS // ACROSS


def lanes_for(columns: int) -> int:
    """The number of threads that share a row: a power of two, about a quarter of its length."""
    return min(1 << max(-(-columns // 4) - 1, 0).bit_length(), THREADS)


def tiles(shape: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """A grid and its block shape, for a loop over a matrix row by row."""
    rows, columns = shape
    wide = min(1 << (columns - 1).bit_length(), THREADS)
    high = THREADS // wide
    across = blocks_for(columns, wide)
    down = min(-(-rows // high), max(1, 4 * BLOCKS // across), HIGHEST)
    return (across, down), (wide, high)


def _around(text: str, first: int, count: str) -> Callable[[Any], Launcher]:
    """Makes launchers from device functions whose arguments from `first` on are a kernel's."""

    def decorate(body: Any) -> Launcher:
        name, code = body.__name__, body.__code__
        given = code.co_varnames[first : code.co_argcount]
        moving = changing(KERNELS[name]) if name in KERNELS else {}
        source = text.format(
            name=name,
            count=count,
            arguments=", ".join(given),
            flat=", ".join(f"flat({a})" for a in given),
            read="; ".join(f"{a}_now = {a}[0]" for a in moving),
            values=", ".join(f"{a}_now" if a in moving else a for a in given),
        )
        names: dict[str, Any] = {**_NAMES, "body": device(body), "__name__": __name__}
        exec(source, names)
        names["kernel"] = kernel(names[name])
        made: Launcher = names["launcher"]
        made.__name__, made.__doc__ = name, body.__doc__
        return made

    return decorate


_NAMES = {f.__name__: f for f in (launch, flat, blocks_for, lanes_for, tiles, counter, philox)} | {
    "cuda": cuda,
    "np": np,
    "THREADS": THREADS,
    "ACROSS": ACROSS,
    "DOWN": DOWN,
}


def each(count: str) -> Callable[[Any], Launcher]:
    """Run the function for every element."""
    return _around(_EACH, 1, count)


def cells(count: str) -> Callable[[Any], Launcher]:
    """Run the function for every row and column."""
    return _around(_CELLS, 2, count)


def draws(count: str) -> Callable[[Any], Launcher]:
    """Run the function for every element and its random word."""
    return _around(_DRAWS, 2, count)


def rows(count: str) -> Callable[[Any], Launcher]:
    """Run the function for every row, with a team of threads."""
    return _around(_ROWS, 3, count)


def columns(count: str) -> Callable[[Any], Launcher]:
    """Run the function for every column, with a team of threads."""
    return _around(_COLUMNS, 3, count)
