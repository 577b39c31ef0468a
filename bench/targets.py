"""The speed that fastnet promises, measured: prints a table and exits with 1 where a target is missed.

    python bench/targets.py [--only steps,gemm] [--workloads xor,mnist] [--seconds 10] [--from FILE]

Targets are ratios within one run, medians over interleaved rounds, so that they hold on a busy machine
too. Where a step or a product misses one, the table says what the roofline would reach in the same rounds,
and with both it and the peer undisturbed: in the quickest tenth of their turns. It is missed all the same.
"""

from __future__ import annotations

from measure import pin  # noqa: F401  # isort: skip  (before NumPy loads)

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Any

import run
from contenders import methods, own, products, structure, workloads
from fastnet.terminal import show
from measure.timing import difference, median, undisturbed_ratio
from tables import ratios

FITS = {  # times as fast as the others' whole fits
    "xor": {"scikit-learn": 100},
    "iris": {"scikit-learn": 55, "PyTorch DataLoader": 170},
    "digits": {"scikit-learn": 15, "PyTorch DataLoader": 40},
}
OF_THE_ENGINE = {
    "housing": 1.04,
    "mnist": 1.04,
    "deep": 1.04,
}  # a fit's time over that of its chunks
LOOPS = {  # the most µs of a step, and whether beyond those of the engine
    ("xor", "fastnet train_on_batch"): (3, False),
    ("housing", "fastnet value_and_grad"): (5, True),
    ("housing", "fastnet five calls"): (14, True),
    ("housing", "fastnet train_on_batch"): (4, True),
}
RESIDUAL = next(iter(structure.CASES))
TORCH = ("PyTorch", "PyTorch fused", "PyTorch compiled")
CALLS = {  # times as fast
    "DQN 4-32-32-2, batch 8: times as fast as PyTorch": 30,
    "DQN 4-256-256-2, batch 256: times as fast as PyTorch": 1.7,
    "target network of DQN 4-32-32-2: times as fast as PyTorch": 4,
    "target network of DQN 4-256-256-2: times as fast as PyTorch": 4,
    "order of 55,000 rows: times as fast as permutation": 10,
    "fit housing, SGD, batch 1, an epoch: times as fast as FANN": 12,
    "an epoch of a sparse matrix, 0.2 %, Adam: times as fast as fastnet, dense": 2.2,
    "an epoch of a sparse matrix, 0.2 %, Adam: times as fast as scikit-learn": 5,
    "an epoch of a sparse matrix, 0.2 %, SGD: times as fast as fastnet, dense": 20,
    **{f"{case}: times as fast as the built-in one": 1 / 1.3 for case in own.CASES},
    **{f"{RESIDUAL}: times as fast as {peer}": 1.8 for peer in TORCH},
    f"{RESIDUAL}: times as fast as roofline": 0.7,
    **{f"an epoch of an RBF net, {size}: times as fast as PyTorch": 4 for size in structure.RADIAL},
    "an epoch with 100,000 classes, SGD, batch 32: times as fast as a full softmax": 20,
}
CALL_SECONDS = {  # the most that a call of each contender takes
    "predict one row, housing": 3e-6,
    "predict one row, a 64×64 layer": 330e-9,
}
MANY = {  # times as fast on two cores
    "64 housing nets: fit_many times as fast as one by one": 1.85,
    "1,000 nets 2-4-1, 1,000 epochs: fit_many times as fast as joblib and scikit-learn": 100,
    "1,000 nets 2-4-1, 1,000 epochs: fit_many times as fast as the engine's own steps": 1 / 2.5,
    "8 learning rates on 5 folds of digits: fit_many times as fast as GridSearchCV": 6,
}
BEFORE = {  # times as fast as the commit `run.BEFORE`
    "fit xor, 4 rows": 80,
    "fit xor, 4 rows, a callback that does nothing": 25,
    "fit xor, 64 minibatches": 9,
    "fit housing, SGD, batch 1": 2.8,
    "xor, value_and_grad and step": 10,
    "xor, five calls": 8,
    "state dict of xor": 4,
    "state dict of housing": 4,
    "state dict of mnist": 4,
}
INSTALL = 2  # times as fast as that commit
STEPS = {  # times as fast as the fastest PyTorch, JAX, scikit-learn; share of the roofline
    "xor": (400, 100, 6, None),
    "housing": (10, 4, 6, 0.60),
    "mnist": (3.8, 2.4, 6, 0.70),
    "deep": (2, 1.5, None, 0.75),
    "wide": (1.15, 1.4, 2.5, 0.80),
}
NUMBA = {"xor": 1.7, "housing": 1.7, "mnist": 1.7, "deep": 1, "wide": 1}  # the fastest PyTorch
PREDICT = {
    "housing, batch 1": 4,
    "mnist, batch 1": 2,
    "housing, batch 1024": 1,
    "mnist, batch 1024": 1,
}
THREADS = {"deep": 1.75, "wide": 1.75, "xor": 1, "housing": 1}
AHEAD = ((8, 16, 16), (64, 64, 64), (32, 128, 784))  # products to be 1.2 times as fast as PyTorch's
NETS = {"the fastest PyTorch eager": 3, "the fastest PyTorch graph": 1}
ON_A_GPU = {"mnist": NETS, "deep": NETS, "wide": {"the fastest PyTorch": 0.95}}
COPY_SHARE = 0.85  # of an optimizer's update on a GPU
NOISE = 0.03  # of what is to be "no slower"
MEMORY, IMPORT_SECONDS, WHEEL_BYTES, COST = 3, 0.040, 1.5e6, 0.15


@dataclass(frozen=True)
class Row:
    """A line of the table; `met` is None where it was not measured."""

    what: str
    target: str
    got: str
    met: bool | None
    note: str = ""


class Checker:
    """Collects rows from the ratios of a run."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        self.ratios, self.limits = ratios.of_all(results), ratios.limits(results)
        self.undisturbed = ratios.limits(results, by=undisturbed_ratio)
        self.rows: list[Row] = []

    def ratio(self, name: str, least: float, unit: str = "×") -> None:
        """One ratio has a least value; 1 means no slower, up to noise."""
        if name not in self.ratios:
            self.rows.append(Row(name, f"≥ {least:g}{unit}", "", None, "not measured"))
            return
        self._worst(name, [name], least, unit)

    def worst(self, what: str, names: Iterable[str], least: float) -> None:
        """The least of several ratios; what was not measured is left out."""
        found = [name for name in names if name in self.ratios]
        if found:
            self._worst(what, found, least)

    def _worst(self, what: str, names: list[str], least: float, unit: str = "×") -> None:
        name = min(names, key=self.ratios.__getitem__)
        value, limit = self.ratios[name], self.limits.get(name)
        below = [n for n in names if self.ratios[n] < least * (1 - NOISE * (least == 1))]
        notes = []
        if len(names) > 1:
            shape = name.split(":")[0].removeprefix("product ")
            notes.append(f"at {shape}; {len(below)} of {len(names)} below")
        if limit is not None and below:
            note = f"the limit of this machine, its roofline, is {limit:.3g}×"
            quiet = self.undisturbed.get(name)
            notes.append(note + (f", {quiet:.3g}× undisturbed" if quiet else ""))
        self.rows.append(
            Row(what, f"≥ {least:g}{unit}", f"{value:.3g}{unit}", not below, "; ".join(notes))
        )

    def most(self, what: str, got: float | None, most: float, scale: float, unit: str) -> None:
        """A number has a greatest value."""
        target = f"≤ {most * scale:g} {unit}"
        if got is None:
            self.rows.append(Row(what, target, "", None, "not measured"))
        else:
            self.rows.append(Row(what, target, f"{got * scale:.3g} {unit}", got <= most))

    def unknown(self, what: str, reason: str) -> None:
        """A section that could not be measured."""
        self.rows.append(Row(what, "", "", None, f"not measured: {reason}"))

    def fit(self) -> None:
        """Whole fits."""
        for name in self.results["fit"]:
            for peer, least in FITS.get(name, {}).items():
                self.ratio(f"fit {name}: times as fast as {peer}", least)
            if name in OF_THE_ENGINE:
                share = self.ratios.get(f"fit {name}: share of the engine's speed")
                got = 1 / share if share else None
                self.most(f"fit {name}: time over the engine's", got, OF_THE_ENGINE[name], 1, "×")

    def loops(self) -> None:
        """Loops of one's own."""
        for (name, ours), (most, beyond) in LOOPS.items():
            times = self.results["loops"].get(name, {}).get("times", {})
            got, what = None, f"loop {name}, {ours}"
            if ours in times:
                got = difference(times, ours, ratios.ENGINE) if beyond else median(times[ours])
            said = ": beyond the engine's step" if beyond else ""
            self.most(what + said, got, most / 1e6, 1e6, "µs")

    def calls(self) -> None:
        """Single calls."""
        for name, least in CALLS.items():
            self.ratio(name, least)
        for case, most in CALL_SECONDS.items():
            for who, times in self.results["calls"].get(case, {"times": {}})["times"].items():
                self.most(f"{case}: {who}", median(times), most, 1e6, "µs")

    def many(self) -> None:
        """Many nets at once."""
        found = self.results["many"]
        if "left_out" in found:
            self.unknown("many nets at once", found["left_out"])
            return
        for name, least in MANY.items():
            self.ratio(name, least)

    def before(self) -> None:
        """An earlier commit."""
        found = self.results["before"]
        if "left_out" in found:
            self.unknown(f"against commit {run.BEFORE}", found["left_out"])
            return
        for name, least in BEFORE.items():
            self.ratio(f"{name}: times as fast as before", least)

    def install(self) -> None:
        """`pip install .`."""
        found = self.results["install"]
        if "left_out" in found:
            self.unknown("pip install", found["left_out"])
        else:
            self.ratio("pip install: times as fast as before", INSTALL)

    def steps(self) -> None:
        """Training steps."""
        for name, (torch, jax, sklearn, share) in STEPS.items():
            if name not in self.results["steps"]:
                continue
            least = {"the fastest PyTorch": torch, "JAX": jax, "scikit-learn": sklearn}
            for peer, value in least.items():
                if value:
                    self.ratio(f"{name}, fastnet c: times as fast as {peer}", value)
            if share:
                self.ratio(f"{name}, fastnet c: share of the roofline", share, unit="")
            self.ratio(f"{name}, fastnet numba: times as fast as the fastest PyTorch", NUMBA[name])

    def predict(self) -> None:
        """Predictions, called the same way."""
        for case, least in PREDICT.items():
            self.ratio(f"predict {case}, fastnet: times as fast as ONNX Runtime", least)

    def gemm(self) -> None:
        """Products, the worst of each class."""
        for form in products.FORMS:
            classes = {
                "M ≤ 128": (0.97, [s for s in products.SHAPES if s[0] <= 128]),
                "M > 128": (0.90, [s for s in products.SHAPES if s[0] > 128]),
                "small": (1.2, AHEAD),
            }
            for label, (least, shapes) in classes.items():
                names = [
                    f"product {products.name(s, form)}: times as fast as PyTorch" for s in shapes
                ]
                self.worst(f"products {form}, {label}: times as fast as PyTorch", names, least)
            names = [
                f"product {products.name(s, form)}: times as fast as NumPy" for s in products.SHAPES
            ]
            self.worst(f"products {form}: times as fast as NumPy", names, 1)

    def methods(self) -> None:
        """Activations, losses and optimizers, the worst of each family at each size."""
        cases = self.results["methods"]
        for family, size in product(methods.FAMILIES, methods.SIZES):
            names = [
                f"{name}: times as fast as PyTorch"
                for name, case in cases.items()
                if case["family"] == family and name.endswith(size)
            ]
            self.worst(f"{family}, {size} elements: times as fast as PyTorch", names, 1)

    def cost(self) -> None:
        """Doublings of a large net."""
        changes = {
            name: abs(1 / self.ratios[f"{name}: cost per flop before over after"] - 1)
            for name, case in self.results["cost"].items()
            if case["regime"] == "large"
        }
        for name, change in changes.items():
            self.most(f"{name}: change of time per flop", change, COST, 100, "%")

    def threads(self) -> None:
        """Two threads against one."""
        reason = self.results["threads"].get("left_out")
        if reason:
            self.unknown("two threads over one", reason)
        for name, least in THREADS.items():
            if name in self.results["threads"]:
                self.ratio(f"{name}: two threads over one", least)

    def cold(self) -> None:
        """Import, wheel, memory."""
        found = self.results["cold"]
        self.most(
            "import of fastnet over NumPy", found["import"]["fastnet"], IMPORT_SECONDS, 1e3, "ms"
        )
        self.most("wheel", found.get("wheel", {}).get("bytes"), WHEEL_BYTES, 1e-6, "MB")
        self.ratio("memory: PyTorch over fastnet", MEMORY)

    def cuda(self) -> None:
        """Training steps and an update on a GPU."""
        found = self.results["cuda"]
        if not ratios.on_a_gpu(self.results):
            self.unknown("cuda", found.get("left_out", "Numba's simulator has no times"))
            return
        for name, workload in workloads.ON_A_GPU.items():
            case = found["cases"].get(name)
            if case and not case["times"]:
                why = "; ".join(case["left_out"].values())
                self.rows.append(Row(f"cuda {name}", "runs", "", False, why))
            elif case:
                for peer, least in ON_A_GPU[workload.name].items():
                    self.ratio(f"cuda {name}: times as fast as {peer}", least)
        self.ratio("cuda update: share of the copy bandwidth", COPY_SHARE, unit="")

    def sanitizer(self) -> None:
        """Kernels without errors of memory and races."""
        found = self.results["sanitizer"]
        if "left_out" in found:
            self.unknown("sanitizer", found["left_out"])
            return
        for tool, said in found.items():
            got = "it cannot tell" if said["errors"] is None else f"{said['errors']} errors"
            note = f"{said['tests']} tests passed"
            self.rows.append(Row(f"sanitizer {tool}", "no errors", got, said["clean"], note))


def check(results: dict[str, Any]) -> list[Row]:
    """The whole table, of the sections that the run measured."""
    checker = Checker(results)
    for section in run.SECTIONS:
        if section in results:
            getattr(checker, section)()
    return checker.rows


def table(rows: list[Row]) -> list[str]:
    """Markdown."""
    verdicts = {True: "met", False: "MISSED", None: "–"}
    lines = ["| what | target | got | | |", "|---|---:|---:|---|---|"]
    return lines + [
        f"| {row.what} | {row.target} | {row.got} | {verdicts[row.met]} | {row.note} |"
        for row in rows
    ]


def main() -> int:
    """Measure and print; the exit status."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    rows = check(run.results_of(parser)[0])
    show("\n".join(table(rows)))
    counts = [sum(row.met is verdict for row in rows) for verdict in (True, False, None)]
    print("\n{} met, {} missed, {} not measured".format(*counts))
    return 1 if counts[1] else 0


if __name__ == "__main__":
    sys.exit(main())
