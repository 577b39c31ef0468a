"""Products in bfloat16 beside float32: kernels, fits beside PyTorch's autocast, and scores of ten seeds.

    python bench/bfloat16.py [--seconds 10] [--only products,fits,scores] [--data DIR] [-o FILE]

Writes BFLOAT16.md: one core, the contenders in turns. DIR has MNIST's four files and cal_housing.csv.gz or
another file of California housing; what is missing is left out, and said.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import fastnet as fn
from contenders import roofline
from contenders.peers import Torch
from contenders.repeated import Repeated
from contenders.workloads import LR, SEED, WORKLOADS, Workload
from fastnet.op import KERNELS
from fastnet.terminal import show
from measure import machine
from measure.pin import pin
from measure.timing import interleave, median, microseconds, ratio, warm
from tables.markdown import markdown

PAGE = Path(__file__).parent / "BFLOAT16.md"
SHAPES = (  # rows, inputs, outputs
    (32, 784, 128),
    (64, 64, 64),
    (128, 512, 512),
    (128, 784, 512),
    (256, 1024, 1024),
    (256, 4096, 4096),
)
WANTED = {"y": ("forward", {"b"}), "dx": ("vjp", {"dw", "db"}), "dw": ("vjp", {"dx", "db"})}
NETS = (
    WORKLOADS["mnist"],
    Workload("mlp", (784, 512, 512, 512, 10), 128, batches=16),
    WORKLOADS["deep"],
    WORKLOADS["wide"],
)
SEEDS = 10


def products(seconds: float) -> list[str]:
    """The linear kernels in both precisions; the peak is twice float32's multiply-adds beside them."""
    rows = []
    for batch, inputs, outputs in SHAPES:
        for what, (phase, absent) in WANTED.items():
            sizes, flops = {"I": inputs, "O": outputs}, 2.0 * batch * inputs * outputs
            turns: dict[str, Any] = {
                op: Repeated(KERNELS[f"{op}_{phase}"], "c", batch, sizes, absent)
                for op in ("linear", "bfloat16_linear")
            }
            if roofline.reason() is None:
                floor = roofline.multiply_adds("peak", flops / 2)
                turns["peak"] = floor
            times = interleave(turns, seconds / len(SHAPES) / len(WANTED))
            cells = [f"{flops / median(times[op]) / 1e9:.0f}" for op in list(turns)[:2]]
            share = "–"
            if "peak" in times:
                each = zip(times["peak"], times["bfloat16_linear"], strict=True)
                share = f"{100 * median([p * floor.units / t for p, t in each]):.0f} %"
            name = f"{batch}×{inputs}×{outputs} {what}"
            rows.append([name, *cells, f"{ratio(times, 'linear', 'bfloat16_linear'):.2f}", share])
    head = ["batch×inputs×outputs", "float32, GFLOP/s", "bfloat16, GFLOP/s", "ratio", "of the peak"]
    return [
        "## Products",
        "",
        "The peak is twice the rate of float32 multiply-adds, measured in the same turns.",
        "",
        *markdown(head, rows),
    ]


class Fit:
    """Epochs of `Trainer.fit`; a step is one of its minibatches."""

    def __init__(self, net: Workload, precision: str | None) -> None:
        config = {**net.model("c").config(), "precision": precision}
        self.trainer = fn.Trainer(
            fn.Sequential.from_config(config), net.loss(), fn.Adam(lr=LR), seed=SEED
        )
        self.data, self.net, self.quantum = net.data(), net, net.batches

    def run(self, steps: int) -> None:
        """So many minibatches."""
        epochs = steps // self.net.batches
        self.trainer.fit(*self.data, epochs=epochs, batch_size=self.net.batch, verbose=0)


class Autocast(Torch):
    """PyTorch with bfloat16 where its autocast takes it."""

    def __init__(self, *given: Any, **options: Any) -> None:
        import torch

        super().__init__(*given, **options)
        exact = self.loss

        def loss(x: Any, y: Any) -> Any:
            with torch.autocast("cpu", torch.bfloat16):
                return exact(x, y)

        self.loss = loss


def fits(seconds: float) -> list[str]:
    """Whole fits with Adam beside PyTorch's steps."""
    lines = [
        "## Fits",
        "",
        "A step of `Trainer.fit` with Adam, in µs; PyTorch's minibatches are cut.",
    ]
    lines.append("")
    names: list[str] = []
    rows, left = [], set[str]()
    for net in NETS:
        makers: dict[str, Callable[[], Any]] = {
            "fastnet float32": lambda net=net: Fit(net, None),
            "fastnet bfloat16": lambda net=net: Fit(net, "bfloat16"),
            "PyTorch fused": lambda net=net: Torch(net, fused=True),
            "PyTorch autocast": lambda net=net: Autocast(net, fused=True),
            "PyTorch autocast, compiled": lambda net=net: Autocast(net, fused=True, compiled=True),
        }
        names = list(makers)
        ready, failed = warm(makers)
        left |= {f"{name}: {why}" for name, why in failed.items()}
        times = interleave(ready, seconds)
        cells = [microseconds(median(times[n])) if n in times else "–" for n in names]
        theirs = [n for n in ready if n.startswith("PyTorch autocast")]
        least = min((median(times[n]) for n in theirs), default=0.0)
        best = next((n for n in theirs if median(times[n]) == least), None)
        ours = f"{ratio(times, 'fastnet float32', 'fastnet bfloat16'):.2f}"
        peer = "–" if best is None else f"{ratio(times, best, 'fastnet bfloat16'):.2f}"
        rows.append([net.title, *cells, ours, peer])
        show(" | ".join(rows[-1]))
    head = ["", *names, "float32 / bfloat16", "fastest autocast / bfloat16"]
    return [*lines, *markdown(head, rows), *(f"Left out: {one}." for one in sorted(left))]


Data = tuple[tuple[Any, Any], tuple[Any, Any]]


def halves(x: Any, y: Any) -> Data:
    """A fifth of the rows for the test."""
    order = np.random.default_rng(SEED).permutation(len(x))
    test, rest = order[: len(x) // 5], order[len(x) // 5 :]
    return (x[rest], y[rest]), (x[test], y[test])


def tasks(folder: Path | None) -> Iterator[tuple[str, Data, tuple[int, ...], int, int]]:
    """Name, data, widths behind the input, epochs and rows of a minibatch."""
    yield "digits", fn.datasets.digits(), (64, 10), 20, 32
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError:
        pass
    else:
        x, y = load_breast_cancer(return_X_y=True)
        yield "breast_cancer", halves(x.astype(np.float32), y), (64, 64, 2), 30, 32
    if folder is None:
        return
    for file in sorted(folder.rglob("cal_housing*")):
        x, y = fn.datasets.california_housing(file)
        yield "housing", halves(x, y), (64, 64, 64, 1), 10, 64
        break
    for file in sorted(folder.rglob("train-images*")):
        yield "mnist", fn.datasets.mnist(file.parent), (128, 10), 5, 32
        break


def score(
    data: Data, widths: tuple[int, ...], epochs: int, batch: int, seed: int, how: Any
) -> float:
    """Accuracy on the test rows, or R² of numbers, after a fit."""
    (x, y), (x_test, y_test) = data
    layers: list[fn.Layer] = [fn.preprocess.StandardScaler().fit(x)]
    for inputs, outputs in zip((x.shape[1], *widths[:-1]), widths, strict=True):
        layers += [fn.Linear(inputs, outputs), fn.ReLU()]
    model = fn.Sequential(*layers[:-1], backend="c", seed=seed, precision=how)
    labels = y.dtype.kind in "iu"
    loss = fn.CrossEntropyLoss() if labels else fn.MSELoss()
    trainer = fn.Trainer(model, loss, fn.Adam(lr=LR), seed=seed)
    trainer.fit(x, y, epochs=epochs, batch_size=batch, verbose=0)
    output = model.predict(x_test)
    if labels:
        return float((output.argmax(axis=1) == y_test).mean())
    return float(1 - ((output - y_test) ** 2).sum() / ((y_test - y_test.mean()) ** 2).sum())


def scores(folder: Path | None) -> list[str]:
    """What each precision is worth on data."""
    rows = []
    for name, data, widths, epochs, batch in tasks(folder):
        found = np.array(
            [
                [score(data, widths, epochs, batch, seed, how) for how in (None, "bfloat16")]
                for seed in range(SEEDS)
            ]
        )
        means, spread, by = found.mean(0), found.std(0, ddof=1), found[:, 1] - found[:, 0]
        cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spread, strict=True)]
        error = by.std(ddof=1) / SEEDS**0.5
        rows.append([name, *cells, f"{by.mean():+.4f} ± {error:.4f}"])
        show(" | ".join(rows[-1]))
    head = ["", "float32", "bfloat16", "difference and its standard error"]
    text = (
        f"Accuracy on the test rows, of housing R²: mean and standard deviation over {SEEDS} seeds."
    )
    return ["## Scores", "", text, "", *markdown(head, rows)]


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="for each net; for all products"
    )
    parser.add_argument("--only", default="products,fits,scores", help="sections (default: all)")
    parser.add_argument("--data", type=Path, help="a folder with MNIST and California housing")
    parser.add_argument("-o", "--output", default=str(PAGE), metavar="FILE")
    options = parser.parse_args()
    pin(1)
    sections: dict[str, Callable[[], list[str]]] = {
        "products": lambda: products(options.seconds),
        "fits": lambda: fits(options.seconds),
        "scores": lambda: scores(options.data),
    }
    lines = ["# Products in bfloat16", ""]
    lines += ["Written by `python bench/bfloat16.py`. Medians of turns on one core.", ""]
    lines += [f"{machine.describe()}; bfloat16 by {fn.backends()['c'].bfloat16 or 'float32'}.", ""]
    lines += [", ".join(f"{n} {v}" for n, v in machine.versions().items()) + ".", ""]
    for name in options.only.split(","):
        made = sections[name]()
        show("\n".join(made))
        lines += made
    Path(options.output).write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
