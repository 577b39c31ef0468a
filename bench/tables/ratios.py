"""What a run's times say, as ratios: how many times as fast fastnet is, each by its name.

A ratio is the median over the rounds of the rounds' ratios, so that what slowed the machine for a
moment slowed both sides. A greater ratio is always the better one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from contenders.loops import LOOPS
from measure.timing import Times, median, ratio

STEPS_OURS = ("fastnet c", "fastnet numba")
ENGINE = "fastnet engine"
PREDICT_OURS = ("fastnet", "fastnet out=")
CUDA = "fastnet cuda"
CUDA_FAMILIES = ("PyTorch eager", "PyTorch graph", "PyTorch")


def fastest(times: Times, family: str) -> str | None:
    """Of the contenders whose names begin with `family`, the one with the least median."""
    names = [name for name in times if name.startswith(family)]
    return min(names, key=lambda name: median(times[name]), default=None)


def against(
    times: Times,
    ours: str,
    families: tuple[str, ...] = ("PyTorch",),
    by: Callable[[Times, str, str], float] = ratio,
) -> dict[str, float]:
    """Ratios of all others to one of fastnet's, and of the fastest of each family."""
    if ours not in times:
        return {}
    others = [n for n in times if not n.startswith("fastnet") and n not in ("roofline", "peak")]
    found = {name: by(times, name, ours) for name in others}
    for family in families:
        quickest = fastest(times, family)
        if quickest:
            found[f"the fastest {family}"] = by(times, quickest, ours)
    return found


def on_a_gpu(results: dict[str, Any]) -> dict[str, Any]:
    """What was measured on a GPU; nothing of the simulator's."""
    found = results.get("cuda", {})
    return {} if found.get("simulator") or "left_out" in found else found


def of_users(results: dict[str, Any]) -> dict[str, float]:
    """The ratios of what users write: whole fits, loops, single calls, many nets, an earlier commit."""
    found: dict[str, float] = {}
    for name, case in results.get("fit", {}).items():
        for peer, value in against(case["times"], "fastnet", ()).items():
            found[f"fit {name}: times as fast as {peer}"] = value
        if ENGINE in case["times"]:
            found[f"fit {name}: share of the engine's speed"] = ratio(
                case["times"], ENGINE, "fastnet"
            )
    for name, case in results.get("loops", {}).items():
        for ours in LOOPS:
            for peer, value in against(case["times"], ours, ()).items():
                found[f"loop {name}, {ours}: times as fast as {peer}"] = value
    for name, case in results.get("calls", {}).items():
        for peer, value in against(case["times"], "fastnet", ()).items():
            found[f"{name}: times as fast as {peer}"] = value
    for name, case in results.get("many", {}).items():
        if name != "left_out":
            for peer in case["times"].keys() - {"fit_many"}:
                value = ratio(case["times"], peer, "fit_many")
                found[f"{name}: fit_many times as fast as {peer}"] = value
    for name, case in results.get("before", {}).get("cases", {}).items():
        found[f"{name}: times as fast as before"] = ratio(case["times"], "before", "now")
    if times := results.get("install", {}).get("times"):
        found["pip install: times as fast as before"] = ratio(times, "before", "now")
    return found


def of_all(results: dict[str, Any]) -> dict[str, float]:
    """Every ratio of a run."""
    found = of_users(results)
    for name, case in results.get("steps", {}).items():
        for ours in STEPS_OURS:
            for peer, value in against(case["times"], ours).items():
                found[f"{name}, {ours}: times as fast as {peer}"] = value
            if "roofline" in case["times"] and ours in case["times"]:
                found[f"{name}, {ours}: share of the roofline"] = ratio(
                    case["times"], "roofline", ours
                )
    for name, case in results.get("predict", {}).items():
        for ours in PREDICT_OURS:
            for peer, value in against(case["times"], ours).items():
                found[f"predict {name}, {ours}: times as fast as {peer}"] = value
    for name, case in results.get("gemm", {}).items():
        for peer, value in against(case["times"], "fastnet").items():
            if peer != "the fastest PyTorch":
                found[f"product {name}: times as fast as {peer}"] = value
    for name, case in results.get("methods", {}).items():
        for peer in case["times"].keys() - {"fastnet"}:
            found[f"{name}: times as fast as {peer}"] = ratio(case["times"], peer, "fastnet")
    for name, case in results.get("threads", {}).items():
        if name != "left_out":
            found[f"{name}: two threads over one"] = ratio(case["times"], "1", "2")
    for name, case in results.get("cost", {}).items():
        found[f"{name}: cost per flop before over after"] = ratio(case["times"], "before", "after")
    for what in ("import", "first step", "memory"):
        values = results.get("cold", {}).get(what, {})
        ours = next((n for n in ("fastnet", "fastnet c") if n in values), None)
        for peer in [n for n in values if ours and not n.startswith(("fastnet", "NumPy"))]:
            found[f"{what}: {peer} over fastnet"] = values[peer] / values[ours]
    gpu = on_a_gpu(results)
    for name, case in gpu.get("cases", {}).items():
        for peer, value in against(case["times"], CUDA, CUDA_FAMILIES).items():
            found[f"cuda {name}: times as fast as {peer}"] = value
        if CUDA in case["times"]:
            found[f"cuda {name}: share of the roofline"] = ratio(case["times"], "roofline", CUDA)
    if "update" in gpu:
        found["cuda update: share of the copy bandwidth"] = ratio(
            gpu["update"]["times"], "copy", CUDA
        )
    return found


def limits(
    results: dict[str, Any], by: Callable[[Times, str, str], float] = ratio
) -> dict[str, float]:
    """What the machine's own limit would reach where `of_all` has a step's or a product's ratio to a peer.

    The limit is the roofline, of products the peak of multiply-adds. By `undisturbed_ratio`, too: a large
    library suffers more from others on the machine than the limit's arithmetic.
    """
    found = {}
    for name, case in results.get("steps", {}).items():
        for peer, value in against(case["times"], "roofline", by=by).items():
            for ours in STEPS_OURS:
                found[f"{name}, {ours}: times as fast as {peer}"] = value
    for name, case in results.get("gemm", {}).items():
        for peer, value in against(case["times"], "peak", by=by).items():
            found[f"product {name}: times as fast as {peer}"] = value
    for name, case in on_a_gpu(results).get("cases", {}).items():
        for peer, value in against(case["times"], "roofline", CUDA_FAMILIES, by).items():
            found[f"cuda {name}: times as fast as {peer}"] = value
    return found
