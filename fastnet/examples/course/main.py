"""Run the experiments, print their tables, and write the pictures and the index page."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import fastnet as fn
from fastnet.examples.course.experiment import Data, Experiment, Result
from fastnet.examples.course.found import found
from fastnet.examples.course.page import HEADS, Part, page
from fastnet.examples.course.picture import alone, drawn
from fastnet.plot.figures import figure_of
from fastnet.terminal import show

FAILED = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for, by default those of `sys.argv`; returns the exit code.

    0: done. 1: data or matplotlib are missing, or a file cannot be written, which a line on standard error
    says. 2: wrong arguments.
    """
    experiments = found()
    options = _parser([one.name for one in experiments]).parse_args(arguments)
    try:
        return _run(experiments, options)
    except (fn.errors.FastnetError, FileNotFoundError) as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename}: {error.strerror}")


def _fail(text: str) -> int:
    print(text, file=sys.stderr)
    return FAILED


def _parser(names: list[str]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m fastnet.examples.course",
        description="The experiments of a course on neural nets, each with a table beside the published "
        "figures and a picture, and an index page of all.",
        allow_abbrev=False,
    )
    made.add_argument("--data", metavar="DIR", help="folder of MNIST's four IDX files (not digits)")
    made.add_argument(
        "--only",
        metavar="NAME",
        action="append",
        choices=names,
        help=f"this experiment; may come again. There are {', '.join(names)}",
    )
    made.add_argument("--out", metavar="DIR", default="course", help="for pages (default course)")
    made.add_argument("--seed", type=int, default=0, help="of all that is random (default 0)")
    made.add_argument("--quick", action="store_true", help="seconds in all: small, to try it out")
    return made


def _run(experiments: list[Experiment], options: argparse.Namespace) -> int:
    if options.seed < 0:
        raise fn.errors.HyperparameterError(
            f"--seed is {options.seed}; expected an integer of at least 0"
        )
    figure_of(None, 1.0, 1.0)  # MissingExtra before anything trains
    data = load(options.data)
    folder = Path(options.out)
    folder.mkdir(parents=True, exist_ok=True)
    show(f"data: {data.name}")
    begin, parts = time.perf_counter(), []
    for experiment in experiments:
        if options.only and experiment.name not in options.only:
            continue
        if experiment.needs_mnist and not data.mnist:
            show(f"\n{experiment.title}\n  left out: it needs MNIST; give its folder by --data")
            continue
        since = time.perf_counter()
        result = experiment.run(data, options.seed, options.quick)
        seconds = time.perf_counter() - since
        svg = drawn(experiment.draw, result, experiment.size, experiment.name)
        (folder / f"{experiment.name}.svg").write_text(alone(svg), encoding="utf-8")
        parts.append(Part(experiment, result, svg, seconds))
        show(f"\n{experiment.title}  ({seconds:.1f} s)\n{table(result)}")
    heading = [f"Data: {data.name}. Seed {options.seed}. fastnet {fn.__version__}."]
    if options.quick:
        heading.append("A quick run: far too short for the figures to mean anything.")
    (folder / "index.html").write_text(page(parts, heading), encoding="utf-8")
    show(
        f"\n{folder / 'index.html'}: {len(parts)} experiments, {time.perf_counter() - begin:.0f} s"
    )
    return 0


def load(folder: str | None) -> Data:
    """MNIST of this folder, or the embedded digits."""
    (X, y), (X_test, y_test) = fn.datasets.mnist(folder) if folder else fn.datasets.digits()
    name = (
        f"MNIST, {len(X):,} images to train on and {len(X_test):,} to test with"
        if folder
        else f"the embedded 8×8 digits, {len(X):,} to train on and {len(X_test):,} to test with, in place "
        "of MNIST; published figures are of MNIST where nothing else is said"
    )
    return Data(X, y, X_test, y_test, name, bool(folder))


def table(result: Result) -> str:
    """The rows of a result in columns, for people."""
    cells = [HEADS, *(row.cells() for row in result.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(4)]
    return "\n".join(
        "  "
        + "  ".join(
            [f"{row[0]:<{widths[0]}}", *(f"{row[i]:>{widths[i]}}" for i in (1, 2, 3)), row[4]]
        ).rstrip()
        for row in cells
    )
