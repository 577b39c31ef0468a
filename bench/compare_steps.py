"""Time of one training step: fastnet against PyTorch and scikit-learn, interleaved, on one core.

    python bench/compare_steps.py [WORKLOAD …] [--seconds 10] [--wide] [--write FILE]

First checks that fastnet and PyTorch make the same losses from the same start, so that the same work
is timed. Prints a Markdown table of µs per step (medians over the rounds), and the ratios of PyTorch
(eager, default Adam) to the others, medians over the rounds of each round's ratio.
"""

from __future__ import annotations

import pin  # isort: skip  (before NumPy loads)

import argparse
import datetime
import os
import platform
import shlex
import statistics
import sys
from importlib import metadata
from pathlib import Path

import contenders
from measure import Times, interleave, microseconds, ratio
from workloads import SLOW, WORKLOADS, Workload

import fastnet
from fastnet.backends import registry


def measure(workload: Workload, seconds: float, backends: list[str]) -> Times:
    """Seconds per step of all contenders, round by round."""
    makers = contenders.fastnets(backends) | contenders.peers()
    return interleave({name: make(workload) for name, make in makers.items()}, seconds)


def tables(results: dict[str, Times]) -> list[str]:
    """Two Markdown tables, of µs per step and of ratios."""
    names = list(next(iter(results.values())))
    rule = "|---|" + "---:|" * len(names)
    lines = ["µs per training step:", "", f"| workload | {' | '.join(names)} |", rule]
    for name, times in results.items():
        cells = [microseconds(statistics.median(times[n])) for n in names]
        lines.append(f"| {WORKLOADS[name].title} | {' | '.join(cells)} |")
    base = "PyTorch"
    if base not in names:
        return lines
    others = [n for n in names if n != base]
    lines += ["", "How many times as fast as PyTorch (eager, default Adam):", ""]
    lines += [f"| workload | {' | '.join(others)} |", "|---|" + "---:|" * len(others)]
    for name, times in results.items():
        cells = [f"{ratio(times, base, n):.3g}" for n in others]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def versions() -> str:
    """The libraries that take part."""
    found = [f"Python {platform.python_version()}", f"fastnet {fastnet.__version__}"]
    for name in ("numpy", "numba", "torch", "scikit-learn"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def machine() -> str:
    """The processor, the number of its cores, and the instruction set of the C backend."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        fields = dict(
            line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line
        )
        model = {k.strip(): v.strip() for k, v in fields.items()}.get("model name", model)
    text = f"{model}, {os.cpu_count()} cores, {platform.system()}"
    if "c" in contenders.backends():
        native = registry.get("c")
        text += f"; the C backend at level {native.levels()[native.level()]}"  # type: ignore[attr-defined]
    return text


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("workloads", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--seconds", type=float, default=10, help="for each workload")
    parser.add_argument("--backends", help="of fastnet, separated by commas; all by default")
    parser.add_argument("--wide", action="store_true", help="the wide net too: minutes")
    parser.add_argument("--write", metavar="FILE", help="write the tables to a Markdown file")
    options = parser.parse_args()
    for name in options.workloads:
        if name not in WORKLOADS:
            parser.error(f"workload {name!r} is unknown; expected one of {', '.join(WORKLOADS)}")
    chosen = options.workloads or [n for n in WORKLOADS if options.wide or n not in SLOW]
    backends = options.backends.split(",") if options.backends else contenders.backends()

    results: dict[str, Times] = {}
    differences = {}
    for name in chosen:
        workload = WORKLOADS[name]
        print(f"{workload.title} …", file=sys.stderr, flush=True)
        if "PyTorch" in contenders.peers():
            differences[name] = contenders.check_same_work(
                workload, backends, steps=3 if name in SLOW else 10
            )
        results[name] = measure(workload, options.seconds, backends)
    lines = [
        "# Training steps: fastnet and its peers",
        "",
        *tables(results),
        "",
        f"- {datetime.date.today()}, `python bench/compare_steps.py {shlex.join(sys.argv[1:])}`",
        f"- {machine()}; one core ({'pinned' if pin.CORE is not None else 'not pinned'}), one thread",
        f"- {versions()}; float32, Adam",
        "- rounds: " + ", ".join(f"{n} {len(next(iter(t.values())))}" for n, t in results.items()),
    ]
    if differences:
        worst = max(differences.values())
        lines.append(
            "- the losses of fastnet's first steps agree with PyTorch's from the same start to "
            f"{worst:.0e} of their size"
        )
    if "deep" in results and "scikit-learn" in contenders.peers():
        lines.append("- scikit-learn has no batchnorm or dropout: it trains the deep net without")
    text = "\n".join(lines) + "\n"
    print(text)
    if options.write:
        Path(options.write).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
