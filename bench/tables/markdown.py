"""Tables of Markdown that several sections of the report have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from measure.timing import median, microseconds, ratio
from tables import ratios

Results = dict[str, Any]


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table; all columns but the first are aligned to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def columns(cases: Results) -> list[str]:
    """All who took part in some case, in order."""
    return list(dict.fromkeys(name for case in cases.values() for name in case["times"]))


def times_table(
    cases: Results, first: str, write: Callable[[float], str] = microseconds
) -> list[str]:
    """Medians, in µs or as `write` has them."""
    names = columns(cases)
    rows = [
        [case.get("title", name)]
        + [write(median(case["times"][n])) if n in case["times"] else "–" for n in names]
        for name, case in cases.items()
    ]
    return markdown([first, *names], rows)


def faster_table(cases: Results, ours: str, families: tuple[str, ...] = ("PyTorch",)) -> list[str]:
    """How many times as fast one of fastnet's is as the others, and the fastest of each family."""
    each = {name: ratios.against(case["times"], ours, families) for name, case in cases.items()}
    peers = list(dict.fromkeys(peer for found in each.values() for peer in found))
    rows = [
        [name, *(f"{found[peer]:.3g}" if peer in found else "–" for peer in peers)]
        for name, found in each.items()
    ]
    return markdown(["workload", *peers], rows)


def roofline_table(cases: Results, all_ours: tuple[str, ...]) -> list[str]:
    """The least times of a step, part by part, and how much of them each of fastnet's reaches."""
    parts = list(dict.fromkeys(part for case in cases.values() for part in case["parts"]))
    rows = []
    for name, case in cases.items():
        times = case["times"]
        if "roofline" in times:
            cells = [microseconds(case["parts"][p]) if p in case["parts"] else "–" for p in parts]
            shares = [
                f"{ratio(times, 'roofline', ours):.0%}" if ours in times else "–"
                for ours in all_ours
            ]
            rows.append([name, *cells, microseconds(median(times["roofline"])), *shares])
    if not rows:
        return []
    head = ["workload", *parts, "sum", *(f"{ours} reaches" for ours in all_ours)]
    return ["The roofline, the least time of a step, µs:", "", *markdown(head, rows)]


def notes(cases: Results) -> list[str]:
    """How well the losses agree, and who is missing."""
    worst = [value for case in cases.values() for value in case["same_work"].values()]
    lines = []
    if worst:
        agree = f"to {max(worst):.0e} of their size"
        lines += [f"From the same start all make the same losses, {agree}."]
    return lines + [
        f"{name}: without {who} ({reason})."
        for name, case in cases.items()
        for who, reason in case["left_out"].items()
    ]


def not_measured(title: str, found: Results) -> list[str]:
    """A section that could not be measured."""
    return [f"## {title}", "", f"Not measured: {found['left_out']}.", ""]
