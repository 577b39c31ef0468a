"""Measures everything that is compared, in one run, into one JSON file.

    python bench/run.py [--only steps,gemm] [--workloads xor,mnist] [--seconds 10] -o FILE

`report.py` and `targets.py` run the same where they are not given a file. In the file, a case holds
the times of all who took part, seconds round by round; everything else is computed from them.
"""

from __future__ import annotations

from measure import pin  # isort: skip  (before NumPy loads)

import argparse
import datetime
import json
import math
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from contenders import calls, fit_peers, methods, peers, predictors, products, roofline, training
from contenders.fits import FITS
from contenders.loops import LOOPS
from contenders.workloads import SLOW, WORKLOADS
from gpu import sanitizer
from measure import machine
from measure.timing import interleave, warm
from suites import before, cold, cost

Results = dict[str, Any]
PLACEMENTS = 3  # of a method's tensors in memory: where they lie makes some percent at 10⁶ elements
FASTNETS = ("c", "numba")  # the backends that are compared
NETS = {**WORKLOADS, **FITS}  # all names of nets
LOOP_PEERS = ("PyTorch", "PyTorch fused", "JAX")
LOOPED = ("xor", "housing", "mnist")  # the workloads of loops of one's own
BEFORE = "7c9f53e"  # the commit that this fastnet is compared with


def own_command() -> str:
    """What was typed."""
    return shlex.join(["python", *sys.argv])


def say(text: str) -> None:
    """A line of progress."""
    print(text, "…", file=sys.stderr, flush=True)


def fit(options: argparse.Namespace) -> Results:
    """Whole fits: of `Trainer.fit`, of the peers' usual ways, and of the engine's chunks."""
    cases: Results = {}
    for name in options.fits:
        each = FITS[name].shortened(2) if options.seconds < 1 else FITS[name]  # a smoke test
        say(f"fit {each.title}")
        same = fit_peers.check_same_fit(each)
        ready, failed = warm(fit_peers.makers(each))
        times = interleave(ready, options.seconds / 2, min_rounds=5)
        cases[name] = {
            "title": each.title,
            "times": {who: [t * each.epochs for t in taken] for who, taken in times.items()},
            "same_work": same,
            "left_out": failed,
        }
    return cases


def loops(options: argparse.Namespace) -> Results:
    """Steps of loops of one's own."""
    cases: Results = {}
    for name in (name for name in LOOPED if name in options.workloads):
        workload = WORKLOADS[name]
        say(f"loops, {workload.title}")
        backend = cost.backend()
        makers = {"fastnet engine": training.FastnetChunk, **LOOPS}
        by_turns = {who: partial(make, workload, backend) for who, make in makers.items()}
        others = {n: m for n, m in peers.available().items() if n in LOOP_PEERS}
        by_turns |= {who: partial(make, workload) for who, make in others.items()}
        same = training.check_same_work(workload, [backend], others=others)
        ready, failed = warm(by_turns)
        cases[name] = {
            "title": workload.title,
            "times": interleave(ready, options.seconds / 2),
            "same_work": same,
            "left_out": failed,
        }
    return cases


def single_calls(options: argparse.Namespace) -> Results:
    """A DQN update, a target network's step, odd rows, and other single calls."""
    cases: Results = {}
    for case in calls.CASES:
        say(case)
        ready, failed = warm(calls.makers(case))
        calls.check_same_output(ready)
        cases[case] = {"times": interleave(ready, options.seconds / 5), "left_out": failed}
    return cases


def steps(options: argparse.Namespace) -> Results:
    """Training steps of each workload, and their roofline."""
    cases: Results = {}
    for name in options.workloads:
        workload = WORKLOADS[name]
        say(workload.title)
        backends = [b for b in FASTNETS if b in machine.backends()]
        same = training.check_same_work(workload, backends, steps=2 if name in SLOW else None)
        makers = training.fastnets(backends) | peers.available()
        ready, failed = warm({n: partial(m, workload) for n, m in makers.items()})
        floors = {} if roofline.reason() else roofline.floors(workload)
        times = interleave(ready | floors, options.seconds)
        parts = roofline.fold(times, floors)
        cases[name] = {
            "title": workload.title,
            "times": times,
            "parts": parts,
            "same_work": same,
            "left_out": failed | ({"roofline": roofline.reason()} if roofline.reason() else {}),
        }
    return cases


def predict(options: argparse.Namespace) -> Results:
    """Predictions of one batch, called from Python."""
    cases: Results = {}
    for case in predictors.CASES:
        say(f"predict {case}")
        ready, failed = warm(predictors.makers(case))
        predictors.check_same_output(ready)
        cases[case] = {"times": interleave(ready, options.seconds / 3), "left_out": failed}
    return cases


def gemm(options: argparse.Namespace) -> Results:
    """Matrix products of all shapes and forms."""
    cases: Results = {}
    for shape in products.SHAPES:
        flops = 2 * math.prod(shape)
        if options.seconds < 1 and flops > 1e9:  # a smoke test
            continue
        say(f"products {shape}")
        for form in products.FORMS:
            ready, _ = warm(products.makers(shape, form))
            floors = {} if roofline.reason() else {"peak": roofline.multiply_adds("GEMM", flops)}
            rounds = 5 if flops > 1e10 else 7
            times = interleave(ready | floors, options.seconds / 10, min_rounds=rounds)
            for name, floor in floors.items():
                times[name] = [seconds * floor.units for seconds in times[name]]
            cases[products.name(shape, form)] = {"flops": flops, "times": times}
    return cases


def each_method(options: argparse.Namespace) -> Results:
    """Kernels of activations, losses and optimizers."""
    cases: Results = {}
    largest = 1e3 if options.seconds < 1 else math.inf  # a smoke test
    say("activations, losses and optimizers")
    for name, (family, makers) in methods.cases(largest).items():
        times, kept = {}, []
        for _ in range(PLACEMENTS):
            ready, failed = warm(makers)
            kept.append(ready)  # keeps its memory, so that the next ones lie elsewhere
            for who, taken in interleave(ready, options.seconds / 20 / PLACEMENTS).items():
                times[who] = times.get(who, []) + taken
        cases[name] = {"family": family, "times": times, "left_out": failed}
    return cases


def two_threads(options: argparse.Namespace) -> Results:
    """One thread against two, in a process of its own that may use two cores."""
    say("two threads")
    script = str(Path(__file__).parent / "suites" / "two_threads.py")
    command = [sys.executable, script, str(options.seconds / 2), *options.workloads]
    return json.loads(pin.run_on(2, command))


def many(options: argparse.Namespace) -> Results:
    """Many nets at once, in a process of its own that may use two cores."""
    say("many nets")
    script = str(Path(__file__).parent / "suites" / "many.py")
    return json.loads(pin.run_on(2, [sys.executable, script, str(options.seconds / 2)]))


def on_a_gpu(options: argparse.Namespace) -> Results:
    """Training steps and an optimizer's update on a GPU, in a process of its own on all cores."""
    script = str(Path(__file__).parent / "gpu" / "steps.py")
    command = [sys.executable, script, str(options.seconds), *options.workloads]
    found = json.loads(pin.run_on(None, command).splitlines()[-1])
    return found if "left_out" in found else found | {"command": own_command()}


def before_and_now(options: argparse.Namespace) -> Results:
    """Users' programs under an earlier commit and now."""
    say(f"commit {BEFORE} and now")
    return before.measure(BEFORE, options.seconds / 4)


def install(_: argparse.Namespace) -> Results:
    """`pip install .` of an earlier commit and of HEAD, each once."""
    say("pip install")
    return before.install_seconds(BEFORE)


SECTIONS: dict[str, Callable[[argparse.Namespace], Results]] = {
    "fit": fit,
    "loops": loops,
    "calls": single_calls,
    "many": many,
    "before": before_and_now,
    "steps": steps,
    "predict": predict,
    "gemm": gemm,
    "methods": each_method,
    "cost": lambda options: cost.measure(options.seconds / 5),
    "threads": two_threads,
    "cold": lambda options: cold.measure(say, quick=options.seconds < 1),
    "cuda": on_a_gpu,
    "sanitizer": lambda _: sanitizer.measure(),
    "install": install,
}
ON_REQUEST = ("install",)  # takes minutes


def add_options(parser: argparse.ArgumentParser) -> None:
    """What every program that measures takes."""
    parser.add_argument(
        "--only",
        metavar="SECTIONS",
        help=f"of {','.join(SECTIONS)}; without it all but {','.join(ON_REQUEST)}",
    )
    parser.add_argument("--workloads", help=f"of {','.join(NETS)}")
    parser.add_argument(
        "--seconds", type=float, default=10, help="for each workload; other cases take a share"
    )


def choose(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Split the lists; refuse names that are unknown."""
    for option, known in (("only", SECTIONS), ("workloads", NETS)):
        given = getattr(options, option)
        names = given.split(",") if given else [n for n in known if n not in ON_REQUEST]
        for name in names:
            if name not in known:
                parser.error(f"--{option}: {name!r} is unknown; expected {', '.join(known)}")
        setattr(options, option, names)
    options.fits = [name for name in options.workloads if name in FITS]
    options.workloads = [name for name in options.workloads if name in WORKLOADS]


def measure(options: argparse.Namespace) -> Results:
    """All chosen sections."""
    results: Results = {
        "date": str(datetime.date.today()),
        "command": own_command(),
        "machine": machine.describe(),
        "pinned": pin.CORES is not None,
        "versions": machine.versions(),
    }
    for section in options.only:
        results[section] = SECTIONS[section](options)
        if options.output:  # what is measured stays if a later section fails
            save(results, Path(options.output))
        if why := results[section].get("left_out"):
            print(f"{section}: not measured: {why}", file=sys.stderr, flush=True)
    return results


def save(results: Results, path: Path) -> None:
    """Write results, times to four digits."""
    short = json.loads(json.dumps(results), parse_float=lambda text: float(f"{float(text):.4g}"))
    path.write_text(json.dumps(short, ensure_ascii=False), encoding="utf-8")


def results_of(parser: argparse.ArgumentParser) -> tuple[Results, argparse.Namespace]:
    """Those of the file that the command line names, or of a run now; and all its options."""
    add_options(parser)
    parser.add_argument("--from", dest="source", metavar="FILE", help="results of an earlier run")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to keep a run's results")
    options = parser.parse_args()
    if options.source:
        return json.loads(Path(options.source).read_text(encoding="utf-8")), options
    choose(parser, options)
    return measure(options), options


if __name__ == "__main__":
    results_of(argparse.ArgumentParser(description=str(__doc__).splitlines()[0]))
