"""The report: measures, or takes a run's file, and writes RESULTS.md, results.json and plots.

python bench/report.py [--only steps,gemm] [--workloads xor,mnist] [--seconds 10] [--from FILE] [--to DIR]
"""

from __future__ import annotations

from measure import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import run
import targets
from fastnet.train.progress import show
from measure.timing import median, microseconds, ratio
from tables import ratios, sections
from tables.markdown import (
    columns,
    faster_table,
    markdown,
    not_measured,
    notes,
    roofline_table,
    times_table,
)

Results = dict[str, Any]


def steps(cases: Results) -> list[str]:
    """Training steps."""
    lines = ["## Training steps", "", "µs per step:", "", *times_table(cases, "workload")]
    for ours in ratios.STEPS_OURS:
        if any(ours in case["times"] for case in cases.values()):
            lines += [f"How many times as fast {ours} is as", "", *faster_table(cases, ours)]
    lines += [*roofline_table(cases, ratios.STEPS_OURS), *notes(cases)]
    if "scikit-learn" in columns({n: c for n, c in cases.items() if n == "deep"}):
        lines += ["scikit-learn trains the deep net without batchnorm and dropout, which it lacks."]
    return [*lines, ""]


def predict(cases: Results) -> list[str]:
    """Predictions."""
    return [
        "## Predictions",
        "",
        "µs per call from Python; `out=` and *bound* put the output where the caller wants it:",
        "",
        *times_table(cases, "net"),
    ]


def gemm(cases: Results) -> list[str]:
    """Matrix products."""
    rows = []
    for name, case in cases.items():
        times = case["times"]
        peers = [n for n in ("PyTorch", "NumPy") if n in columns(cases)]
        speed = [
            f"{case['flops'] / median(times[n]) / 1e9:.3g}" if n in times else "–"
            for n in ("fastnet", *peers, "peak")
        ]
        shares = [f"{ratio(times, n, 'fastnet'):.2f}" if n in times else "–" for n in peers]
        rows.append([name, *speed, *shares])
    head = ["M×N×K", "fastnet", *peers, "peak", *(f"to {peer}" for peer in peers)]
    return [
        "## Matrix products",
        "",
        "GFLOP/s, and how many times as fast fastnet is (PyTorch's BLAS is MKL, NumPy's OpenBLAS):",
        "",
        *markdown(head, rows),
    ]


def methods(cases: Results) -> list[str]:
    """Kernels of activations, losses and optimizers."""
    lines = [
        "## Activations, losses, optimizers",
        "",
        "µs for so many elements, and how many times as fast fastnet is (losses: value and gradient):",
        "",
    ]
    for family in dict.fromkeys(case["family"] for case in cases.values()):
        rows = []
        for name, case in cases.items():
            times = case["times"]
            if case["family"] != family or "fastnet" not in times:
                continue
            peer = "PyTorch" in times
            theirs = microseconds(median(times["PyTorch"])) if peer else "–"
            share = f"{ratio(times, 'PyTorch', 'fastnet'):.2f}" if peer else "–"
            rows.append([f"`{name}`", microseconds(median(times["fastnet"])), theirs, share])
        lines += markdown([family, "fastnet", "PyTorch", "times as fast"], rows)
    missing = {
        f"{who} of `{name}` ({reason})"
        for name, case in cases.items()
        for who, reason in case["left_out"].items()
    }
    return [*lines, *([f"Left out: {'; '.join(sorted(missing))}.", ""] if missing else [])]


def cost(cases: Results) -> list[str]:
    """Doublings."""
    rows = []
    for name, case in cases.items():
        each = [median(case["times"][when]) for when in ("before", "after")]
        change = 1 / ratio(case["times"], "before", "after") - 1
        rows.append([name, *(f"{1e12 * t:.3g}" for t in each), f"{change:+.0%}"])
    return [
        "## Cost against size",
        "",
        "ps per flop of a training step when one dimension doubles:",
        "",
        *markdown(["net", "before", "after", "change"], rows),
    ]


def threads(cases: Results) -> list[str]:
    """Two threads."""
    if "left_out" in cases:
        return not_measured("Two threads", cases)
    rows = [
        [
            case["title"],
            *(microseconds(median(case["times"][n])) for n in ("1", "2")),
            f"{ratio(case['times'], '1', '2'):.2f}",
        ]
        for case in cases.values()
    ]
    head = ["workload", "one thread", "two", "times as fast"]
    return ["## Two threads", "", "µs per step:", "", *markdown(head, rows)]


def cold(found: Results) -> list[str]:
    """What happens once."""
    lines = ["## Cold starts", ""]
    for what, label, scale in (
        ("import", "import over NumPy, ms", 1e3),
        ("first step", "from import to the end of the first step of the mnist net, ms", 1e3),
        ("memory", "peak memory of training the mnist net on 55,000 rows of uint8, MB", 1e-6),
    ):
        names, values = found[what].keys(), found[what].values()
        lines += markdown([label, *names], [["", *(f"{scale * v:,.0f}" for v in values)]])
    wheel = found.get("wheel", {})
    if "bytes" in wheel:
        lines += [f"The wheel has {wheel['bytes'] / 1e6:.2f} MB.", ""]
    return lines


WRITERS: dict[str, Callable[[Results], list[str]]] = {
    "steps": steps,
    "predict": predict,
    "gemm": gemm,
    "methods": methods,
    "cost": cost,
    "threads": threads,
    "cold": cold,
    "cuda": sections.cuda,
    "sanitizer": sections.sanitizer,
}


def text(results: Results, plots: list[str]) -> str:
    """RESULTS.md."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    rows = targets.check(results)
    met = [row.met for row in rows if row.met is not None]
    lines = [
        "# Results",
        "",
        f"- {results['date']}, `{results['command']}`; [README.md](README.md) says what is timed and how",
        f"- {results['machine']}; one core ({'pinned' if results['pinned'] else 'not pinned'}), "
        "one thread, float32, Adam",
        f"- {versions}",
        "- medians over interleaved rounds; ratios are medians of the rounds' ratios",
        "",
    ]
    for section, write in WRITERS.items():
        if section in results:
            lines += write(results[section])
            lines += [f"![{name}](plots/{name}.png)\n" for name in plots if name == section]
    lines += ["## Targets", "", f"{sum(met)} of {len(met)} are met.", "", *targets.table(rows), ""]
    return "\n".join(lines)


def gpu_alone(results: Results) -> bool:
    """Whether a run measured nothing but what is measured on a GPU."""
    return not any(section in results for section in run.SECTIONS if section not in sections.ALL)


def joined(results: Results, old: Results) -> Results:
    """A run's results, and those of an earlier report that it leaves as they are.

    A GPU is usually another machine's: its figures stay where a run has none, and a run of it alone
    leaves all else.
    """
    kept = old if gpu_alone(results) else {s: old[s] for s in sections.ALL if s in old}
    nothing = [s for s in sections.ALL if s in kept and not sections.measured(results, s)]
    new = sections.ALL if gpu_alone(results) and old else results
    return kept | {key: results[key] for key in new if key in results and key not in nothing}


def main() -> None:
    """Measure or read, then write."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--to", default=str(Path(__file__).parent), metavar="DIR")
    results, options = run.results_of(parser)
    folder = Path(options.to)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    drawn = [plot.stem for plot in sorted((folder / "plots").glob("*.png"))]
    alone, results = gpu_alone(results), joined(results, old)
    run.save(results, path)
    if not alone:
        try:
            from tables import plots
        except ImportError as error:
            show(f"no plots: {error}")
            drawn = []
        else:
            drawn = plots.draw(results, folder / "plots")
    written = text(results, drawn)
    (folder / "RESULTS.md").write_text(written, encoding="utf-8")
    show(written)


if __name__ == "__main__":
    main()
