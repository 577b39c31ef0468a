"""The least time that a training step can take on this core: its floors, measured beside the step.

A floor is a thing that must be done (flops, bytes, …) over the rate at which the core does it at best.
The rates come from `roofline.c`, which the machine's C compiler builds for the machine when a run
starts; a floor is a contender like any other, so that what slows the core slows both.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from contenders.workloads import Workload
from measure.timing import Times

FLAGS = ["-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC"]
ADAM_BYTES = (
    28  # an element: parameter, gradient and both moments read, all but the gradient written
)


class Unavailable(Exception):
    """There is no C compiler, or it failed."""


@cache
def library() -> ctypes.CDLL:
    """`roofline.c`, compiled for this machine."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or "cc"
    source = Path(__file__).with_suffix(".c")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "roofline.so")
        command = [compiler, *FLAGS, str(source), "-o", str(built), "-lm"]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except OSError as error:
            raise Unavailable(f"no C compiler: {error}") from None
        except subprocess.CalledProcessError as error:
            raise Unavailable(f"{compiler} failed: {error.stderr.strip()[-200:]}") from None
        found = ctypes.CDLL(str(built))
    found.flops.restype = found.elements.restype = ctypes.c_int64
    return found


@cache
def reason() -> str | None:
    """Why there is no roofline on this machine; None where there is."""
    try:
        library()
    except Unavailable as error:
        return str(error)
    return None


@dataclass
class Floor:
    """Work of one kind that a step must do: `units` of what `run(1)` does."""

    what: str  # the part of the step
    units: float
    run: Callable[[int], None]
    quantum: int = 1


def _unit(name: str, *arguments: np.ndarray | int) -> Callable[[int], None]:
    function = getattr(library(), name)
    values = [
        ctypes.c_void_p(a.ctypes.data) if isinstance(a, np.ndarray) else ctypes.c_int64(a)
        for a in arguments
    ]

    def run(units: int, _keep: object = arguments) -> None:
        function(ctypes.c_int64(units), *values)

    return run


def multiply_adds(what: str, flops: float) -> Floor:
    """Flops at the rate of independent fused multiply-adds."""
    return Floor(what, flops / library().flops(), _unit("multiply_add"))


def _bytes(what: str, moved: float, working_set: float) -> Floor:
    values = np.ones(max(16, round(working_set / 4)), np.float32)
    return Floor(what, moved / (2 * values.nbytes), _unit("change", values, values.size))


def _roots(what: str, elements: float) -> Floor:
    size = library().elements()
    ones, out = np.ones(size, np.float32), np.empty(size, np.float32)
    return Floor(what, elements / size, _unit("root_divide", ones, out))


def _philox(what: str, words: float) -> Floor:
    size = library().elements()
    return Floor(what, words / size, _unit("philox", np.empty(size // 4, np.uint64)))


@dataclass
class Work:
    """What a step must do in one of its parts: so many flops, bytes, roots or random words.

    working_set: the bytes that it keeps coming back to, which some cache may hold.
    """

    what: str
    kind: str
    amount: float
    working_set: float = 0


def work(workload: Workload) -> list[Work]:
    """All that a training step with Adam must do; bench/README.md has the formulas."""
    batch, hidden, parameters = workload.batch, workload.widths[1:-1], workload.parameters
    found = [
        Work("GEMM", "flops", workload.flops),
        Work("Adam", "bytes", ADAM_BYTES * parameters, 16 * parameters),
        Work("Adam", "roots", parameters),
    ]
    elements, activations = batch * sum(hidden), 4 * batch * max(hidden)
    if workload.batchnorm:  # x → y, then x, dy → dx
        found.append(Work("batchnorm", "bytes", 20 * elements, 2 * activations))
    if workload.dropout:  # in place, both ways; the mask's random words once
        found.append(Work("dropout", "bytes", 16 * elements, activations))
        found.append(Work("dropout", "words", elements))
    if workload.classes:  # logits → their gradient
        logits = 4 * batch * workload.widths[-1]
        found.append(Work("softmax", "bytes", 2 * logits, logits))
    return found


def floors(workload: Workload) -> dict[str, Floor]:
    """The floors of a training step on this core, by name."""
    make: dict[str, Callable[[Work], Floor]] = {
        "flops": lambda w: multiply_adds(w.what, w.amount),
        "bytes": lambda w: _bytes(w.what, w.amount, w.working_set),
        "roots": lambda w: _roots(w.what, w.amount),
        "words": lambda w: _philox(w.what, w.amount),
    }
    return named([make[w.kind](w) for w in work(workload)])


def named(floors: list[Floor]) -> dict[str, Floor]:
    """Floors by names that tell them from contenders."""
    return {f"floor {number}: {floor.what}": floor for number, floor in enumerate(floors)}


def fold(times: Times, floors: dict[str, Floor]) -> dict[str, float]:
    """Replace the floors' times by those of the "roofline"; returns the parts, seconds a step.

    Of two floors of one part the slower binds; the parts add up.
    """
    binding: dict[str, list[float]] = {}
    for name, floor in floors.items():
        each = [seconds * floor.units for seconds in times.pop(name)]
        other = binding.get(floor.what)
        if other is None or statistics.median(each) > statistics.median(other):
            binding[floor.what] = each
    if binding:
        times["roofline"] = [sum(parts) for parts in zip(*binding.values(), strict=True)]
    return {what: statistics.median(each) for what, each in binding.items()}
