"""Training steps on a GPU against PyTorch's, and an optimizer's update: prints JSON for `run.py`.

    python bench/gpu/steps.py SECONDS WORKLOAD …

A process of its own, on all cores, as PyTorch launches its backward from a thread of its own. float32
products are float32's on both sides: TF32 is off, which is measured.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # before any of NVIDIA's libraries loads
os.environ.pop("FASTNET_CUDA_TF32", None)
os.environ.pop("FASTNET_CUDA_GRAPHS", None)  # which are taken as they come

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/, as for a script there

from measure import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import datetime
import json
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import fastnet as fn
from contenders import roofline, training
from contenders.workloads import ON_A_GPU, SLOW, Workload
from gpu import pytorch
from measure import machine
from measure.timing import MIN_ROUNDS, interleave, warm

Results = dict[str, Any]
OURS = "fastnet cuda"
STEPS = 5  # whose losses are compared: rounding errors grow tenfold every few steps of a deep net


class Resident(training.FastnetChunk):
    """A chunk within an epoch of `Trainer.fit`: what it changes stays on the device."""

    def __init__(self, workload: Workload) -> None:
        super().__init__(workload, "cuda")
        self.quantum = workload.batches
        self.resident = self.executor.resident()
        self.resident.__enter__()


def tiny(workload: Workload) -> Workload:
    """A net for the simulator: of as many layers."""
    return replace(workload, widths=(6, *[5] * (len(workload.widths) - 2), 3), batch=4, batches=2)


def warned() -> list[str]:
    """What is warned of when a net is trained here: that CUDA graphs cannot be used, say."""
    contender = Resident(tiny(ON_A_GPU["mnist, batch 32"]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        contender.run(2 * contender.quantum)
    return [str(one.message) for one in told]


def rounds(seconds: float) -> int:
    """At least so many; one in a smoke test."""
    return 1 if seconds < 1 else MIN_ROUNDS


def case(workload: Workload, rates: Any, device: str, seconds: float) -> Results:
    """One net: who takes part, checked to do the same work, their times and the least ones."""
    peers = pytorch.available(device)
    makers = {OURS: Resident, **peers}
    result: Results = {"title": workload.title, "times": {}, "parts": {}, "same_work": {}}
    try:
        ready, failed = warm({n: partial(make, workload) for n, make in makers.items()})
        working = {name: peers[name] for name in ready if name != OURS}
        steps = 2 if workload.name in SLOW or seconds < 1 else STEPS
        same = training.check_same_work(workload, ["cuda"], steps, working)
        floors = rates.floors(workload)
        times = interleave(ready | floors, seconds, rounds(seconds))
    except Exception as error:  # the other cases' figures are wanted all the same
        return result | {"left_out": {"any of them": f"{type(error).__name__}: {error}"}}
    parts = roofline.fold(times, floors)
    return result | {"times": times, "parts": parts, "same_work": same, "left_out": failed}


def update(rates: Any, device: str, seconds: float) -> Results:
    """Adam on one flat vector, and the copy of as many bytes as it must move."""
    from gpu.rates import PARAMETERS, Update

    size = PARAMETERS
    ready: dict[str, Any] = {OURS: Update(size), "copy": rates.copy}
    if not pytorch.reason(device):
        ready["PyTorch fused"] = pytorch.Update(size, device)
    times = interleave(ready, seconds, rounds(seconds))
    units = roofline.ADAM_BYTES * size / rates.copy.amount
    times["copy"] = [units * each for each in times["copy"]]
    return {"elements": size, "times": times}


def refuse_tf32(device: str) -> None:
    """Stop where a product rounds what it multiplies."""
    from gpu.rates import rounds_inputs

    rounded = {"fastnet": rounds_inputs()}
    if not pytorch.reason(device):
        rounded["PyTorch"] = pytorch.rounds_inputs(device)
    if any(rounded.values()):
        raise AssertionError(f"products are not float32's: TF32 {rounded}")


def describe() -> str:
    """The device and its driver."""
    from fastnet.backends.cuda.device import cuda

    device = cuda.get_current_device()
    major, minor = device.compute_capability
    driver = ".".join(map(str, cuda.cudadrv.driver.get_version()))
    return (
        f"{device.name}, compute capability {major}.{minor}, "
        f"{device.MULTIPROCESSOR_COUNT} multiprocessors, driver for CUDA {driver}"
    )


def measure(seconds: float, names: list[str]) -> Results:
    """All cases of these workloads; or why there are none."""
    info = fn.backends()["cuda"]
    if not info.available:
        return {"left_out": info.reason}
    from fastnet.backends.cuda.device import SIMULATOR

    if SIMULATOR and seconds >= 1:
        return {"left_out": "Numba's simulator is on, whose times say nothing"}
    from gpu.rates import Rates

    device = "cpu" if SIMULATOR else "cuda"
    results: Results = {
        "date": str(datetime.date.today()),
        "machine": machine.describe(),
        "versions": machine.versions(),
        "device": "Numba's simulator" if SIMULATOR else describe(),
        "simulator": SIMULATOR,
    }
    if reason := pytorch.reason(device):
        results["without"] = f"PyTorch ({reason})"
    results["warned"] = warned()
    refuse_tf32(device)
    rates = Rates(device)
    results["update"] = update(rates, device, seconds)
    results["cases"] = {}
    cases = {name: workload for name, workload in ON_A_GPU.items() if workload.name in names}
    if SIMULATOR:
        cases = {workload.name: tiny(workload) for workload in cases.values()}
    for name, workload in cases.items():
        print(workload.title, "…", file=sys.stderr, flush=True)
        results["cases"][name] = case(workload, rates, device, seconds)
    return results


if __name__ == "__main__":
    print(json.dumps(measure(float(sys.argv[1]), sys.argv[2:])))
