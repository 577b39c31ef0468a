"""Leave a saddle of a deep linear net: `python -m fastnet.examples.saddle [--plot FILE]`.

Three linear layers are to learn a map with the singular values 1 and 0.02. At the start they know the first
singular direction and nothing of the second: the gradient is zero there, and the loss can only fall along
directions in which two layers grow together (A. M. Saxe, J. L. McClelland, S. Ganguli, "Exact solutions to
the nonlinear dynamics of learning in deep linear neural networks", ICLR 2014). The fits begin a thousandth
beside this point. Gradient descent has a constant rate, of which the best is searched. Needs no package;
the plot needs matplotlib.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.train.full_batch import FullBatchHistory

SINGULAR = (1.0, 0.02)
INPUTS = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])  # XᵀX/4 = I
LOSS = SINGULAR[1] ** 2 / 2  # at the saddle
LEFT = 0.1  # of this loss: the saddle is left
OFFSET = 1e-3
RATES = np.geomspace(0.05, 3, 25)


def deep_linear(offset: float) -> fn.Sequential:
    """The net at the saddle, or so far beside it in a fixed direction."""
    layers = (fn.Linear(2, 2, bias=False) for _ in range(3))
    model = fn.Sequential(*layers, dtype="float64", seed=0)
    root = SINGULAR[0] ** (1 / 3)
    aside = np.array([[1.0, -2.0], [3.0, 1.0]]) / 4
    with model.edit() as values:
        for i, middle in enumerate((0.0, 1.0, 0.0)):
            values[f"{i}.weight"][...] = np.diag([root, middle]) + offset * np.roll(aside, i)
    return model


def fit(offset: float, method: str, **options: Any) -> FullBatchHistory:
    """The fit of a method from there."""
    trainer = fn.Trainer(deep_linear(offset), fn.MSELoss(), seed=0)
    return trainer.fit_full_batch(INPUTS, INPUTS * SINGULAR, method, **options)


def left(history: FullBatchHistory) -> int | None:
    """The first iteration whose loss is a tenth of the saddle's; None: there is none."""
    (found,) = np.nonzero(np.array(history.history["loss"]) < LEFT * LOSS)
    return int(found[0]) if found.size else None


def descent(rate: float, most: int) -> FullBatchHistory:
    """Gradient descent at a constant rate, which is halved where the loss would rise."""
    options = {"step": rate, "grow": 1.0}
    return fit(OFFSET, "gradient-descent", max_iter=most, tol=0.0, options=options)


def best_descent(most: int = 2000) -> FullBatchHistory:
    """Gradient descent at the rate that leaves the saddle first."""
    fits = [descent(rate, most) for rate in RATES]
    return min(fits, key=lambda history: left(history) or most)


def plot(histories: dict[str, FullBatchHistory], path: str) -> None:
    """The losses by iteration, over the saddle's, as a picture."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    ax: Any = figure.subplots()
    for name, history in histories.items():
        losses = np.array(history.history["loss"]) / LOSS
        few = len(losses) < 50  # each iterate is a point, before the lines of the others
        ax.loglog(
            1 + np.arange(len(losses)),
            np.maximum(losses, 1e-6),
            label=name,
            marker="o" if few else None,
            markersize=3,
            zorder=3 if few else 2,
        )
    ax.axhline(1.0, color="#9aa3ad", linewidth=0.8)
    ax.set_xlabel("iteration, from 1")
    ax.set_ylabel("loss / loss at the saddle")
    ax.set_ylim(1e-6, 3)
    ax.legend(frameon=False, loc="center", bbox_to_anchor=(0.6, 0.4))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastnet"}):
        figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def main() -> None:
    """Run the methods and say when each has left."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--plot", metavar="FILE", help="where to draw the losses (.svg, .png, …)")
    options = parser.parse_args()
    histories = {
        "saddle-free Newton": fit(OFFSET, "saddle-free-newton", tol=1e-9),
        "Newton": fit(OFFSET, "newton", tol=1e-9),
        "gradient descent, best rate": best_descent(),
    }
    for name, history in histories.items():
        found, last = left(history), history.records[-1]
        how = "never leaves" if found is None else f"leaves after {found} iterations"
        print(f"{name}: {how}; ends at {last['loss'] / LOSS:.3g} of the saddle's loss")
    if options.plot:
        plot(histories, options.plot)


if __name__ == "__main__":
    main()
