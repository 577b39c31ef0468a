"""Products of Jacobians and Hessians beside torch.func and JAX, and beside their own multiplications.

    python bench/curvature.py [--seconds 10] [--note TEXT] [-o FILE]

Writes CURVATURE.md: one core, float32, the contenders in turns. Before it measures, it compares their
products. "count" is the number of multiplications and additions of a product over that of a gradient.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from contenders.workloads import Workload
from fastnet.model.curvature import Curvature
from fastnet.terminal import show
from measure import machine
from measure.pin import pin
from measure.timing import Times, interleave, median, microseconds, ratio
from tables.markdown import markdown

PAGE = Path(__file__).parent / "CURVATURE.md"
NETS = (
    Workload("housing", (8, 64, 64, 64, 1), 64, classes=False),
    Workload("mnist", (784, 128, 10), 32),
    Workload("deep", (784, 512, 512, 512, 10), 128),
)
Run = Callable[[], Any]


class Calls:
    """A function that is called again and again."""

    quantum = 1

    def __init__(self, function: Run) -> None:
        self.function = function

    def run(self, steps: int) -> None:
        """Call it so many times."""
        for _ in range(steps):
            self.function()


class Case:
    """A net with a minibatch and a direction of each kind."""

    def __init__(self, net: Workload) -> None:
        self.net, self.model, self.loss = net, net.model("c"), net.loss()
        rng = np.random.default_rng(0)
        self.x = rng.normal(size=(net.batch, net.widths[0])).astype(np.float32)
        self.dx = rng.normal(size=self.x.shape).astype(np.float32)
        if net.classes:
            self.y: Any = rng.integers(0, net.widths[-1], net.batch)
        else:
            self.y = rng.normal(size=(net.batch, net.widths[-1])).astype(np.float32)
        named = self.model.named_parameters()
        # As other arrays of the library are: in the layout of the kernels.
        self.v = {n: rng.normal(size=p.T.shape).astype(np.float32).T for n, p in named.items()}

    def count(self) -> float:
        """Multiplications of H·v over those of a gradient.

        A gradient has 3 products a layer and the first layer 2; H·v has 8, and the first layer 3: forward,
        its tangent, and the tangent of the weights' gradient.
        """
        sizes = [a * b for a, b in pairwise(self.net.widths)]
        return (8 * sum(sizes) - 5 * sizes[0]) / (3 * sum(sizes) - sizes[0])

    def ours(self) -> dict[str, Run]:
        """What fastnet's methods do."""
        model, loss, x, y, dx, v = self.model, self.loss, self.x, self.y, self.dx, self.v
        data = model.data(loss, model.features("x", x), y, "x", "y", by_rows=True)
        kept = Curvature(model, loss, data, kept=True)
        kept.linearize()
        vector = np.random.default_rng(1).normal(size=len(kept.places))
        return {
            "forward": lambda: model.forward(x),
            "gradient": lambda: model.value_and_grad(loss, x, y),
            "jvp of x": lambda: model.jvp(x, dx),
            "jvp of x and parameters": lambda: model.jvp(x, dx, v),
            "hvp": lambda: model.hvp(loss, x, y, v),
            "gnvp": lambda: model.gnvp(loss, x, y, v),
            "hvp, kept": lambda: kept.product(vector),
        }

    def torch(self) -> dict[str, Run]:
        """The same by torch.func, without and with compilation left out: eager."""
        import torch

        torch.set_num_threads(1)
        twin = self.model.to_torch()
        params = {k: p.detach() for k, p in twin.named_parameters()}
        v = {n: torch.tensor(np.ascontiguousarray(a)) for n, a in self.v.items()}
        x, dx = torch.tensor(self.x), torch.tensor(self.dx)
        y = torch.tensor(self.y)

        def squares(output: Any, y: Any) -> Any:
            return ((output - y) ** 2).mean()  # mse_loss has no forward over reverse here

        kind = torch.nn.functional.cross_entropy if self.net.classes else squares

        def output(p: Any, at: Any) -> Any:
            return torch.func.functional_call(twin, p, at)

        def gradient(p: Any) -> Any:
            return torch.func.grad(lambda q: kind(output(q, x), y))(p)

        return {
            "jvp of x": lambda: torch.func.jvp(lambda at: output(params, at), (x,), (dx,)),
            "jvp of x and parameters": lambda: torch.func.jvp(output, (params, x), (v, dx)),
            "hvp": lambda: torch.func.jvp(gradient, (params,), (v,))[1],
        }

    def jax(self) -> dict[str, Run]:
        """H·v by JAX, forward over reverse, jitted; empty where JAX is missing."""
        try:
            import jax
        except ImportError:
            return {}
        import jax.numpy as jnp

        state = {n: jnp.asarray(np.array(a)) for n, a in self.model.named_parameters().items()}
        v = {n: jnp.asarray(np.array(a)) for n, a in self.v.items()}
        layers = sorted({n.split(".")[0] for n in state}, key=int)
        classes = self.net.classes

        def loss(p: Any, x: Any, y: Any) -> Any:
            for number, layer in enumerate(layers):
                x = x @ p[f"{layer}.weight"].T + p[f"{layer}.bias"]
                x = jax.nn.relu(x) if number < len(layers) - 1 else x
            if classes:
                return -jnp.take_along_axis(jax.nn.log_softmax(x), y[:, None], 1).mean()
            return ((x - y) ** 2).mean()

        @jax.jit
        def product(p: Any, x: Any, y: Any, v: Any) -> Any:
            return jax.jvp(lambda q: jax.grad(loss)(q, x, y), (p,), (v,))[1]

        x, y = jnp.asarray(self.x), jnp.asarray(self.y)
        return {"hvp": lambda: jax.block_until_ready(product(state, x, y, v))}


def check(case: Case, ours: dict[str, Run], theirs: dict[str, Run]) -> None:
    """Stop where products differ."""
    for name, run in theirs.items():
        mine, other = ours[name](), run()
        of_rows = name.startswith("jvp")
        pairs = [(mine[1], other[1])] if of_rows else [(mine[n], other[n]) for n in mine]
        for a, b in pairs:
            b = np.asarray(b)
            if np.abs(a - b).max() > 1e-3 * np.abs(b).max():
                sys.exit(f"{case.net.name}: {name} differs")


def measured(case: Case, seconds: float) -> Times:
    """The seconds of each contender, in turns."""
    ours, peers = case.ours(), {"torch.func": case.torch(), "JAX": case.jax()}
    for theirs in peers.values():
        check(case, ours, theirs)
    runs = {f"fastnet {name}": run for name, run in ours.items()}
    runs |= {f"{peer} {name}": run for peer, of in peers.items() for name, run in of.items()}

    return interleave({name: Calls(run) for name, run in runs.items()}, seconds)


def main() -> None:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="for each net")
    parser.add_argument("--note", default="", help="a sentence for the page, such as on other load")
    parser.add_argument("-o", "--output", default=str(PAGE), metavar="FILE")
    options = parser.parse_args()
    pin(1)
    lines = ["# Products of Jacobians and Hessians", ""]
    lines += ["Written by `python bench/curvature.py`. Medians of turns, one core, float32.", ""]
    lines += [options.note, ""] if options.note else []
    lines += [machine.describe() + ".", ""]
    lines += [", ".join(f"{n} {v}" for n, v in machine.versions().items()) + ".", ""]
    for net in NETS:
        case = Case(net)
        times = measured(case, options.seconds)
        unit = {"jvp": "fastnet forward", "hvp": "fastnet gradient", "gnv": "fastnet gradient"}
        rows = []
        for name in times:
            what = name.split(" ", 1)[1]
            base = unit.get(what[:3])
            of = "" if base is None else f"{ratio(times, name, base):.2f}"
            ours = f"fastnet {what}"
            over = "" if name == ours or ours not in times else f"{ratio(times, name, ours):.1f}"
            rows.append([name, microseconds(median(times[name])), of, over])
        lines += [f"## {net.title}", "", f"H·v counts as {case.count():.2f} gradients.", ""]
        head = ["", "µs", "forwards or gradients", "times fastnet's"]
        lines += markdown(head, rows)
        show("\n".join(lines[-len(rows) - 6 :]))
    Path(options.output).write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
