"""The report's sections: what RESULTS.md says of each section of a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contenders.loops import LOOPS
from contenders.roofline import ADAM_BYTES
from measure.timing import duration, median, microseconds, ratio
from tables.markdown import (
    columns,
    faster_table,
    markdown,
    not_measured,
    notes,
    roofline_table,
    times_table,
)
from tables.ratios import CUDA, CUDA_FAMILIES, STEPS_OURS, against

Results = dict[str, Any]
GPU = ("cuda", "sanitizer")  # the sections of what is measured on one


def fit(cases: Results) -> list[str]:
    """Whole fits."""
    return [
        "## Whole fits",
        "",
        *fit_table(cases),
        "How many times as fast `Trainer.fit` is as",
        "",
        *faster_table(with_peers(cases), "fastnet", ()),
        *notes(cases),
        "",
    ]


def with_peers(cases: Results) -> Results:
    """The cases in which others take part."""
    return {n: c for n, c in cases.items() if against(c["times"], "fastnet", ())}


def fit_table(cases: Results) -> list[str]:
    """The times of whole fits, which the README has too."""
    return times_table(cases, "fit", duration)


def loops(cases: Results) -> list[str]:
    """Loops of one's own."""
    lines = ["## Loops of one's own", "", *loops_table(cases)]
    for ours in LOOPS:
        lines += [f"How many times as fast {ours} is as", "", *faster_table(cases, ours, ())]
    return [*lines, *notes(cases), ""]


def loops_table(cases: Results) -> list[str]:
    """The times of a step, which the README has too."""
    return times_table(cases, "a step of one's own loop", duration)


def calls(cases: Results) -> list[str]:
    """Single calls."""
    lines = ["## Single calls", ""]
    head = ["call", "who", "time", "fastnet is times as fast"]
    rows = []
    for name, case in cases.items():
        for who, times in case["times"].items():
            compared = "fastnet" in case["times"] and who != "fastnet"
            share = f"{ratio(case['times'], who, 'fastnet'):.3g}" if compared else "–"
            rows.append([name, who, duration(median(times)), share])
    return [*lines, *markdown(head, rows)]


def many(cases: Results) -> list[str]:
    """Many nets at once."""
    if "left_out" in cases:
        return not_measured("Many nets at once", cases)
    rows = [
        [name, who, duration(median(times)), f"{ratio(case['times'], who, 'fit_many'):.3g}"]
        for name, case in cases.items()
        for who, times in case["times"].items()
    ]
    head = ["nets", "who", "time", "fit_many is times as fast"]
    return ["## Many nets at once", "", "On two cores:", "", *markdown(head, rows)]


def before(found: Results) -> list[str]:
    """An earlier commit."""
    if "left_out" in found:
        return not_measured("An earlier commit", found)
    rows = [
        [
            name,
            *(duration(median(case["times"][when])) for when in ("before", "now")),
            f"{ratio(case['times'], 'before', 'now'):.3g}",
        ]
        for name, case in found["cases"].items()
    ]
    head = ["what users write", f"commit {found['commit']}", "now", "times as fast"]
    title = f"Against commit {found['commit']}"
    return [f"## {title}", "", "By turns of two processes on one core:", "", *markdown(head, rows)]


def install(found: Results) -> list[str]:
    """`pip install .`."""
    if "left_out" in found:
        return not_measured("Installation", found)
    old, new = (median(found["times"][when]) for when in ("before", "now"))
    text = (
        f"`pip install .` on two cores takes {new:,.0f} s, {old:,.0f} of commit {found['commit']}."
    )
    return ["## Installation", "", text, ""]


def steps(cases: Results) -> list[str]:
    """Training steps."""
    lines = [
        "## Training steps of the engine",
        "",
        "µs per step:",
        "",
        *times_table(cases, "workload"),
    ]
    for ours in STEPS_OURS:
        if any(ours in case["times"] for case in cases.values()):
            lines += [f"How many times as fast {ours} is as", "", *faster_table(cases, ours)]
    lines += [*roofline_table(cases, STEPS_OURS), *notes(cases)]
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


def measured(results: Results, section: str) -> bool:
    """Whether a run has figures of a GPU."""
    found = results.get(section, {"left_out": "not chosen"})
    return not ("left_out" in found or found.get("simulator"))


def cuda(found: Results) -> list[str]:
    """Training steps and an update."""
    if "left_out" in found:
        return not_measured("CUDA", found)
    if found["simulator"]:
        return ["## CUDA", "", "Numba's simulator ran all of it once; its times say nothing.", ""]
    cases = found["cases"]
    versions = ", ".join(f"{name} {version}" for name, version in found["versions"].items())
    lines = [
        "## CUDA",
        "",
        f"- {found['device']}",
        f"- {found['date']}, `{found['command']}`; {found['machine']}; {versions}",
        "- float32 with TF32 off on both sides, Adam; fastnet's chunks within an epoch",
        "",
        "µs per step:",
        "",
        *times_table(cases, "workload"),
        f"How many times as fast {CUDA} is as",
        "",
        *faster_table(cases, CUDA, CUDA_FAMILIES),
        *roofline_table(cases, (CUDA,)),
        *notes(cases),
        *([f"Without {found['without']}."] if "without" in found else []),
        *(f"fastnet warned: {text}." for text in found["warned"]),
        "",
    ]
    return lines + update(found["update"])


def update(case: Results) -> list[str]:
    """Adam on one flat vector."""
    times, moved = case["times"], ADAM_BYTES * case["elements"]
    rows = [
        [
            name,
            microseconds(median(times[name])),
            f"{moved / median(times[name]) / 1e9:,.0f}",
            f"{ratio(times, 'copy', name):.0%}",
        ]
        for name in times
    ]
    return [
        f"Adam's update of {case['elements']:,} parameters, {ADAM_BYTES} bytes each, and a copy of "
        "as many bytes, read and written both counted:",
        "",
        *markdown(["who", "µs", "GB/s", "of the copy"], rows),
    ]


def sanitizer(found: Results) -> list[str]:
    """What compute-sanitizer says of the contract tests."""
    if "left_out" in found:
        return not_measured("compute-sanitizer", found)
    rows = [
        [tool, "?" if said["errors"] is None else str(said["errors"]), str(said["tests"])]
        for tool, said in found.items()
    ]
    lines = ["## compute-sanitizer", "", *markdown(["tool", "errors", "tests passed"], rows)]
    for tool, said in found.items():
        if "report" in said:
            lines += [f"{tool}, status {said['status']}:", "", "```", *said["report"], "```", ""]
    return lines


WRITERS: dict[str, Callable[[Results], list[str]]] = {
    "fit": fit,
    "loops": loops,
    "calls": calls,
    "many": many,
    "before": before,
    "install": install,
    "steps": steps,
    "predict": predict,
    "gemm": gemm,
    "methods": methods,
    "cost": cost,
    "threads": threads,
    "cold": cold,
    "cuda": cuda,
    "sanitizer": sanitizer,
}
