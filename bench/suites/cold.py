"""What happens once: imports, the first step, the wheel, and the memory of a training; fresh processes.

Times are seconds beyond the import of NumPy, memory is the largest resident set in bytes.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fastnet as fn
from measure import machine

BENCH, ROOT = Path(__file__).resolve().parents[1:3]
PACKAGE = Path(fn.__file__).resolve().parents[1]  # the fastnet that runs here, installed or not
BYTECODE = tempfile.TemporaryDirectory(prefix="bytecode-")

MODULES = {
    "fastnet": "fastnet",
    "PyTorch": "torch",
    "JAX": "jax",
    "scikit-learn": "sklearn.neural_network",
    "ONNX Runtime": "onnxruntime",
}
IMPORT = """
import time, numpy
begin = time.perf_counter()
import {module}
print(time.perf_counter() - begin)
"""

# The net's first step, from the import on. Peers are spared the import of fastnet and of this suite.
FIRST_STEP = """
from measure import pin
import time, numpy
from dataclasses import replace
{before}
begin = time.perf_counter()
from contenders import peers, training
from contenders.workloads import WORKLOADS
{make}(replace(WORKLOADS["mnist"], batches=1){how}).run(1)
print(time.perf_counter() - begin)
"""

DATA = """
from measure import pin
import numpy
random = numpy.random.default_rng(0)
X = random.integers(0, 256, (55_000, 784), dtype=numpy.uint8)
y = random.integers(0, 10, 55_000)
"""
MEMORY = {
    "fastnet": DATA
    + """
import fastnet as fn
model = fn.Sequential(fn.Linear(784, 128), fn.ReLU(), fn.Linear(128, 10), seed=0)
trainer = fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(lr=1e-3), seed=0)
trainer.fit(X, y, epochs={epochs}, batch_size=32, verbose=0)
""",
    "PyTorch": DATA
    + """
import torch
from torch import nn
torch.set_num_threads(1)
net = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
loss, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
X, y = torch.from_numpy(X), torch.from_numpy(y)
for epoch in range({epochs}):
    for rows in torch.randperm(len(X)).split(32):
        optimizer.zero_grad()
        loss(net(X[rows].float()), y[rows]).backward()
        optimizer.step()
""",
    "NumPy and the data": DATA,
}
PEAK = """
import pathlib, resource, sys
status = pathlib.Path("/proc/self/status")
if status.exists():  # ru_maxrss would count the parent's memory before exec
    line = next(l for l in status.read_text().splitlines() if l.startswith("VmHWM"))
    print(int(line.split()[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def fresh(script: str, **variables: str) -> float:
    """The number that a script prints last, in a process of its own."""
    path = os.pathsep.join([str(PACKAGE), str(BENCH)])
    # As installed packages have it: compiled to bytecode, by the first process if not before.
    bytecode = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": BYTECODE.name}
    environment = {**os.environ, "PYTHONPATH": path, **bytecode, **variables}
    command = [sys.executable, "-W", "ignore", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"a fresh process failed:\n{done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def medians(scripts: dict[str, str], rounds: int) -> dict[str, float]:
    """Of each script's number; they take turns, and where there are several the first is not counted."""
    turns = [{name: fresh(script) for name, script in scripts.items()} for _ in range(rounds)]
    return {n: statistics.median(turn[n] for turn in turns[rounds > 1 :]) for n in scripts}


def _installed(modules: dict[str, str]) -> dict[str, str]:
    return {n: m for n, m in modules.items() if importlib.util.find_spec(m.split(".")[0])}


def imports() -> dict[str, str]:
    """Seconds to import each library, NumPy loaded before."""
    return {name: IMPORT.format(module=m) for name, m in _installed(MODULES).items()}


def first_steps() -> dict[str, str]:
    """Seconds from import to the end of the first step of the mnist net."""
    chunk = "training.FastnetChunk"
    scripts = {
        f"fastnet {name}": FIRST_STEP.format(before="", make=chunk, how=f", {name!r}")
        for name in machine.backends()
        if name != "reference"
    }
    for name in _installed({"PyTorch": "torch", "JAX": "jax"}):
        make = {"PyTorch": "peers.Torch", "JAX": "peers.Jax"}[name]
        scripts[name] = FIRST_STEP.format(before="import contenders.training", make=make, how="")
    return scripts


def memory(epochs: int = 1) -> dict[str, str]:
    """Peak bytes of training the mnist net on 55,000 rows of uint8."""
    return {
        name: script.replace("{epochs}", str(epochs)) + PEAK
        for name, script in MEMORY.items()
        if name != "PyTorch" or importlib.util.find_spec("torch")
    }


SCRIPTS: dict[str, Callable[[], dict[str, str]]] = {
    "import": imports,
    "first step": first_steps,
    "memory": memory,
}


def wheel() -> dict[str, Any]:
    """Bytes of the wheel of this source tree; builds it."""
    isolated = ["--no-build-isolation"] if importlib.util.find_spec("scikit_build_core") else []
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, *isolated]
        done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
        if done.returncode:
            return {"left_out": f"the wheel could not be built: {done.stderr.strip()[-200:]}"}
        (built,) = Path(folder).iterdir()
        return {"bytes": built.stat().st_size, "name": built.name}


def measure(say: Callable[[str], None], quick: bool = False) -> dict[str, Any]:
    """Everything of this file; `quick`, for tests: each once, and no wheel."""
    say("fresh processes")
    rounds = {"import": 7, "first step": 3, "memory": 1}
    found: dict[str, Any] = {
        what: medians(scripts(), 1 if quick else rounds[what]) for what, scripts in SCRIPTS.items()
    }
    if quick:
        return found
    if numba := first_steps().get("fastnet numba"):
        with tempfile.TemporaryDirectory() as empty:
            first = fresh(numba, NUMBA_CACHE_DIR=empty)
        found["first step"]["fastnet numba, never used before"] = first
    say("the wheel")
    found["wheel"] = wheel()
    return found
