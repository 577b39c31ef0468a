"""The report's sections of what is measured on a GPU."""

from __future__ import annotations

from typing import Any

from contenders.roofline import ADAM_BYTES
from measure.timing import median, microseconds, ratio
from tables.markdown import faster_table, markdown, not_measured, notes, roofline_table, times_table
from tables.ratios import CUDA, CUDA_FAMILIES

Results = dict[str, Any]
ALL = ("cuda", "sanitizer")


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
