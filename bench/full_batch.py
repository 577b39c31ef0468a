"""The full-batch methods on four tasks: where each ends, and how soon, in processor time.

    python bench/full_batch.py [--only curve,noise,classes,saddle] [--seeds 3] [--budget 2] [-o FILE]

Prints the tables of docs/full-batch.md. All methods of a task begin at the same weights, one after the
other for each seed, on one thread of the engine and of BLAS; their time is the processor's, from the call
of `fit_full_batch` to the record of an iterate, so that other programs count little.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import json
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples import saddle
from fastnet.terminal import show
from fastnet.train.full_batch import METHODS
from measure import machine
from tables.markdown import markdown

Results = dict[str, Any]
FLAT = 1e-6  # largest component of the gradient
EXACT = 1e-12  # the same where the loss falls to zero: all of the time is taken
UNTIMED = ("newton",)  # which is no minimiser
MOST_ITERATIONS = 10**6
ROBUST = {"L-BFGS-B": {"ftol": 0.0, "maxfun": 10**9}}


def curve() -> tuple[Any, Any, Any, tuple[int, ...], float]:
    """A smooth function of one number without noise: sin 4πx/4πx + 0.3·sin 9x at 400 points."""
    x = np.linspace(-1, 1, 400)[:, None]
    return x, np.sinc(4 * x) + 0.3 * np.sin(9 * x), fn.MSELoss(), (1, 20, 1), 0.0


def noise() -> tuple[Any, Any, Any, tuple[int, ...], float]:
    """A noisy function of four numbers, 500 rows, with weight decay."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    y = np.sin(x[:, 0] * x[:, 1]) + np.tanh(x[:, 2] - x[:, 3]) + 0.2 * rng.normal(size=500)
    return x, y[:, None], fn.MSELoss(), (4, 10, 1), 1e-3


def classes() -> tuple[Any, Any, Any, tuple[int, ...], float]:
    """The digits, 1,437 images of 8×8, with weight decay."""
    (x, y), _ = fn.datasets.digits()
    return np.asarray(x, np.float64), y, fn.CrossEntropyLoss(), (x.shape[1], 16, 10), 1e-3


TASKS = {"curve": curve, "noise": noise, "classes": classes}


def net(sizes: tuple[int, ...], seed: int, dtype: str) -> fn.Sequential:
    """A multilayer perceptron with tanh."""
    layers: list[Any] = []
    for a, b in pairwise(sizes):
        layers += [fn.Linear(a, b), fn.Tanh()]
    return fn.Sequential(*layers[:-1], dtype=dtype, seed=seed)


def fitted(task: str, method: str, seed: int, options: argparse.Namespace) -> Results:
    """The last loss, the iterations, and the seconds until the gradient is FLAT, or None."""
    x, y, loss, sizes, decay = TASKS[task]()
    trainer = fn.Trainer(net(sizes, seed, options.dtype), loss, seed=0)
    flat, begun = FLAT if decay else EXACT, time.process_time()

    def note(record: dict[str, Any]) -> None:
        if time.process_time() - begun > options.budget:
            raise StopIteration

    history = trainer.fit_full_batch(
        x,
        y,
        method,
        max_iter=MOST_ITERATIONS,
        tol=flat,
        weight_decay=decay,
        options=ROBUST.get(method),
        callback=note,
    )
    took, last = time.process_time() - begun, history.records[-1]
    return {
        "loss": last["loss"],
        "iterations": len(history) - 1,
        "seconds": took if last["grad_norm"] <= flat else None,
    }


def measured(task: str, options: argparse.Namespace) -> Results:
    """The fits of each method, of all seeds in turn."""
    names = [name for name in METHODS if name not in UNTIMED]
    if not isinstance(TASKS[task]()[2], fn.MSELoss):
        names.remove("levenberg-marquardt")
    found: Results = {name: [] for name in names}
    for seed in range(options.seeds):
        for name in names:
            found[name].append(fitted(task, name, seed, options))
    return found


def table_of(task: str, found: Results, budget: float) -> list[str]:
    """A row for each method: the last loss, seconds until it is flat, iterations."""
    square = isinstance(TASKS[task]()[2], fn.MSELoss) and TASKS[task]()[4] == 0
    rows = []
    for name, fits in found.items():
        losses = np.array([fit["loss"] for fit in fits])
        last = f"{np.median(np.sqrt(losses)):.2g}" if square else f"{np.median(losses):.5f}"
        times = [fit["seconds"] for fit in fits if fit["seconds"] is not None]
        took = f"{statistics.median(times):.2f}" if times else "–"
        if 0 < len(times) < len(fits):
            took += f" ({len(times)} of {len(fits)})"
        iterations = statistics.median(fit["iterations"] for fit in fits)
        rows.append([f'`"{name}"`', last, took, f"{iterations:.0f}"])
    what = "rms error" if square else "loss"
    head = ["method", f"{what} after at most {budget:g} s", "s until flat", "iterations"]
    return markdown(head, rows)


def saddles() -> Results:
    """The iterations after which each method has left the saddle, or None."""
    found: Results = {}
    for name in METHODS:
        history = (
            saddle.best_descent()
            if name == "gradient-descent"
            else saddle.fit(saddle.OFFSET, name, max_iter=200, tol=1e-9)
        )
        found[name] = saddle.left(history)
    return found


def main() -> None:
    """Measure, or read a file of results, and print the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--only", default=",".join([*TASKS, "saddle"]))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=float, default=2.0, help="seconds of each fit")
    parser.add_argument("--dtype", default="float64")
    parser.add_argument("--from", dest="source", metavar="FILE")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to keep the results")
    options = parser.parse_args()
    fn.set_num_threads(1)
    if options.source:
        results = json.loads(Path(options.source).read_text("utf-8"))
    else:
        results = {
            "command": " ".join(["python", *sys.argv]),
            "machine": machine.describe(),
            "budget": options.budget,
        }
        for name in options.only.split(","):
            results[name] = saddles() if name == "saddle" else measured(name, options)
            if options.output:
                Path(options.output).write_text(json.dumps(results), "utf-8")
    lines = [f"`{results['command']}`; {results['machine']}.", ""]
    for task, make in TASKS.items():
        if task in results:
            lines += [str(make.__doc__), "", *table_of(task, results[task], results["budget"])]
    if "saddle" in results:
        rows = [[f'`"{n}"`', "–" if k is None else str(k)] for n, k in results["saddle"].items()]
        lines += ["The saddle.", "", *markdown(["method", "iterations until it is left"], rows)]
    show("\n".join(lines))


if __name__ == "__main__":
    main()
