"""Meta-train a learned optimizer: `python -m fastnet.examples.learning_to_learn --save FILE`.

The optimizer is an LSTM whose weights all parameters of all problems share (M. Andrychowicz et al.,
"Learning to learn by gradient descent by gradient descent", NeurIPS 2016). It is trained on problems drawn
at random: an episode optimises a few of them side by side for 100 steps, and after each 20 steps the LSTM's
weights make a step of Adam along the gradient of the losses on the way. This goes back through those 20
steps (truncated backpropagation), but not through the gradients that the LSTM reads, which count as given.

Afterwards the optimizer runs on problems that it has not seen, beside Adam, RMSprop and SGD at the best
rate of a grid. `fn.LearnedOptimizer("FILE")` uses what was saved.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.files import tensors
from fastnet.optim.learned import KIND, features

Array = np.ndarray
STEPS, UNROLLED = 100, 20
LR = 0.1  # the factor of the LSTM's output, as LearnedOptimizer has it by default
RATES = tuple(float(f"{m}e{e}") for e in range(-3, 2) for m in (1, 2, 5))[:-1]  # 0.001 … 20
PEERS = {
    "Adam": lambda lr: fn.Adam(lr),
    "RMSprop": lambda lr: fn.RMSprop(lr),
    "SGD": lambda lr: fn.SGD(lr),
    "SGD, momentum 0.9": lambda lr: fn.SGD(lr, 0.9),
}


class Quadratics:
    """f(θ) = ‖Wθ − y‖², with normal W (n, n), y and start θ; `count` of them side by side."""

    def __init__(self, random: np.random.Generator, count: int = 48, n: int = 10) -> None:
        self.w, self.y = random.normal(size=(count, n, n)), random.normal(size=(count, n))
        self.start = random.normal(size=(count, n))

    def evaluate(self, theta: Array) -> tuple[Array, Array]:
        """The values (count,) and the gradients (count, n) at θ (count, n)."""
        rest = np.einsum("bij,bj->bi", self.w, theta) - self.y
        return np.square(rest).sum(axis=1), 2 * np.einsum("bij,bi->bj", self.w, rest)


class Nets:
    """Nets of one layer of `hidden` units for the digits, on a minibatch of their own in each step.

    The digits are 8 × 8 pixels, or with `small` means of four, 4 × 4. Loss: cross-entropy. The weights
    begin as LeCun's normal ones.
    """

    def __init__(
        self,
        random: np.random.Generator,
        count: int = 4,
        hidden: int = 10,
        rows: int = 64,
        small: bool = True,
        activation: Callable[[Array], tuple[Array, Array]] | None = None,
    ) -> None:
        (x, self.labels), _ = fn.datasets.digits()
        self.x = x.reshape(-1, 4, 2, 4, 2).mean(axis=(2, 4)).reshape(-1, 16) if small else x
        inputs, self.rows, self.random = self.x.shape[1], rows, random
        self.activation = activation or tanh
        self.shapes = [(inputs, hidden), (hidden,), (hidden, 10), (10,)]
        self.ends = np.cumsum([np.prod(shape) for shape in self.shapes])[:-1]
        parts = [
            random.normal(size=(count, *shape)) * (len(shape) > 1) / shape[0] ** 0.5
            for shape in self.shapes
        ]
        self.start = np.concatenate([part.reshape(count, -1) for part in parts], axis=1)

    def evaluate(self, theta: Array) -> tuple[Array, Array]:
        """The losses (count,) and the gradients (count, parameters) on the next minibatch."""
        chosen, count = self.random.integers(len(self.x), size=self.rows), len(theta)
        x, labels = self.x[chosen].astype(theta.dtype), self.labels[chosen]
        parts = np.split(theta, self.ends, axis=1)
        u, a, v, b = (
            p.reshape(count, *s) if len(s) > 1 else p.reshape(count, 1, *s)
            for p, s in zip(parts, self.shapes, strict=True)
        )
        h, slope = self.activation(x @ u + a)
        logits = h @ v + b
        logits -= logits.max(axis=2, keepdims=True)
        log_p = logits - np.log(np.exp(logits).sum(axis=2, keepdims=True))
        dy = np.exp(log_p)
        dy[:, np.arange(self.rows), labels] -= 1
        dy /= self.rows
        dh = (dy @ v.transpose(0, 2, 1)) * slope
        grads = x.T @ dh, dh.sum(axis=1), h.transpose(0, 2, 1) @ dy, dy.sum(axis=1)
        losses = -log_p[:, np.arange(self.rows), labels].mean(axis=1)
        return losses, np.concatenate([g.reshape(count, -1) for g in grads], axis=1)


class Scaled:
    """A problem whose values and gradients are multiplied by a factor."""

    def __init__(self, problem: Any, factor: float) -> None:
        self.problem, self.factor, self.start = problem, factor, problem.start

    def evaluate(self, theta: Array) -> tuple[Array, Array]:
        """The values and the gradients."""
        value, slope = self.problem.evaluate(theta)
        return self.factor * value, self.factor * slope


class Deep:
    """One net of four layers of 32 ReLUs for the 8 × 8 digits, by fastnet, on minibatches of 64 rows."""

    def __init__(self, random: np.random.Generator) -> None:
        (self.x, self.labels), _ = fn.datasets.digits()
        self.random, layers = random, []
        for inputs in (64, 32, 32, 32):
            layers += [fn.Linear(inputs, 32), fn.ReLU()]
        self.model = fn.Sequential(*layers, fn.Linear(32, 10), seed=int(random.integers(1000)))
        self.start = np.concatenate([np.ravel(p) for p in self.model.parameters()])[None].astype(
            "d"
        )

    def evaluate(self, theta: Array) -> tuple[Array, Array]:
        """The loss (1,) and its gradient (1, parameters) on the next minibatch."""
        begin = 0
        with self.model.edit() as values:
            for name, p in self.model.named_parameters().items():
                values[name][...] = theta[0, begin : begin + p.size].reshape(p.shape)
                begin += p.size
        rows = self.random.integers(len(self.x), size=64)
        loss = self.model.value_and_grad(fn.CrossEntropyLoss(), self.x[rows], self.labels[rows])
        slope = np.concatenate([np.ravel(g) for g in self.model.grads.values()])
        return np.array([loss]), slope[None].astype("d")


def tanh(z: Array) -> tuple[Array, Array]:
    """The hyperbolic tangent and its derivative."""
    h = np.tanh(z)
    return h, 1 - h * h


def relu(z: Array) -> tuple[Array, Array]:
    """The rectifier and its derivative."""
    return np.maximum(z, 0), (z > 0).astype(z.dtype)


def sigmoid(z: Array) -> Array:
    """1/(1 + e^−z)."""
    return 0.5 * np.tanh(0.5 * z) + 0.5


class Unrolled(fn.CustomLayer, base=True):
    """From θ and the LSTM's state to θ after each of some steps on a problem.

    A row is a parameter of the problem: θ, and h and c of each layer, (1 + 2·layers·units). The output has
    a column for each step.
    """

    def __init__(self, units: int, layers: int) -> None:
        super().__init__(units=units, layers=layers)
        self._problem: Any = None
        bound = units**-0.5
        for layer in range(layers):  # rows: gates of PyTorch's order; columns: bias, inputs, h
            width = 1 + (units if layer else 2) + units
            self.parameter(f"table{layer}", (4 * units, width), fn.init.Uniform(-bound, bound))
        self.parameter("out", (1, 1 + units), fn.init.Normal(0.0, 0.1 * bound))

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """A column for each step."""
        return (UNROLLED,)

    def of(self, problem: Any) -> None:
        """Take this problem from now on."""
        self._problem = problem

    def found(self) -> tuple[list[Array], list[Array], Array]:
        """Of the last forward: values and slopes at the start and after each step, and x for the next."""
        return self._values, self._slopes, self._state

    def forward(self, x: Any, saved: Any = None) -> Array:
        """θ ← θ + LR·output in each step; the gradients are given."""
        shape, units, one = self._problem.start.shape, self.units, np.ones((1, len(x)), x.dtype)
        tables = [getattr(self, f"table{layer}") for layer in range(self.layers)]
        theta, *states = np.split(
            np.ascontiguousarray(x.T), [1 + k * units for k in range(2 * self.layers)]
        )
        h, c = states[::2], states[1::2]
        value, slope = self._problem.evaluate(theta.reshape(shape))
        saved.steps, path, self._values, self._slopes = [], [], [value], [slope]
        for _ in range(UNROLLED):
            steps, given = [], features(slope.astype(x.dtype).ravel())
            for layer, table in enumerate(tables):
                z = np.concatenate([one, given, h[layer]])
                gates = table @ z
                for squashed in (gates[: 2 * units], gates[3 * units :]):
                    squashed *= 0.5
                np.tanh(gates, out=gates)
                for squashed in (gates[: 2 * units], gates[3 * units :]):  # σ(z) = tanh(z/2)/2 + ½
                    squashed *= 0.5
                    squashed += 0.5
                i, f, cell, o = gates.reshape(4, units, -1)
                new = f * c[layer] + i * cell
                bent = np.tanh(new)
                steps.append((z, i, f, cell, o, c[layer], bent))
                given = h[layer] = o * bent
                c[layer] = new
            last = np.concatenate([one, given])
            saved.steps.append((steps, last))
            theta = theta + x.dtype.type(LR) * (self.out @ last)
            path.append(theta[0])
            value, slope = self._problem.evaluate(theta.reshape(shape))
            self._values.append(value)
            self._slopes.append(slope)
        both = [part for pair in zip(h, c, strict=True) for part in pair]
        self._state = np.concatenate([theta, *both]).T
        return np.stack(path, axis=1)

    def backward(self, dy: Any, saved: Any = None) -> Any:
        """Back through the steps; what came before them, and the gradients they read, are constants."""
        units, layers, rows = self.units, self.layers, len(dy)
        tables = [getattr(self, f"table{layer}") for layer in range(layers)]
        grads = {name: np.zeros_like(p.value) for name, p in self._parameters.items()}
        dh = [np.zeros((units, rows), dy.dtype) for _ in range(layers)]
        dc = [np.zeros((units, rows), dy.dtype) for _ in range(layers)]
        later = np.cumsum(dy.T[::-1], axis=0)[::-1] * dy.dtype.type(LR)
        for t in reversed(range(UNROLLED)):
            steps, last = saved.steps[t]
            grads["out"] += later[t : t + 1] @ last.T
            down = self.out[:, 1:].T * later[t]
            for layer in reversed(range(layers)):
                z, i, f, cell, o, c, bent = steps[layer]
                into = dh[layer] + down
                through = dc[layer] + into * o * (1 - bent * bent)
                sums = np.concatenate(
                    [
                        through * cell * i * (1 - i),
                        through * c * f * (1 - f),
                        through * i * (1 - cell * cell),
                        into * bent * o * (1 - o),
                    ]
                )
                grads[f"table{layer}"] += sums @ z.T
                down, dh[layer] = np.split((tables[layer].T @ sums)[1:], [len(z) - 1 - units])
                dc[layer] = through * f
        return np.zeros((rows, 1 + 2 * layers * units), dy.dtype), grads

    def weights(self) -> dict[str, Array]:
        """As LearnedOptimizer takes them."""
        found = {"output.weight": self.out[:, 1:], "output.bias": self.out[0, :1]}
        for layer in range(self.layers):
            table = getattr(self, f"table{layer}")
            found[f"lstm.weight_ih_l{layer}"] = table[:, 1 : -self.units]
            found[f"lstm.weight_hh_l{layer}"] = table[:, -self.units :]
            found[f"lstm.bias_ih_l{layer}"] = table[:, 0]
        return {name: np.array(value, order="C") for name, value in found.items()}


def episode(model: fn.Sequential, meta: fn.Optimizer, problem: Any) -> float:
    """Optimise the problem, and the optimizer after each UNROLLED steps; the mean value at the end.

    Gradients are clipped to length 1. Else the first steps on a problem, whose values are large, would
    count more than all others.
    """
    unrolled: Any = model[0]
    unrolled.of(problem)
    theta = problem.start.reshape(-1, 1)
    state = np.zeros((len(theta), 2 * unrolled.layers * unrolled.units))
    x = np.concatenate([theta, state], axis=1).astype(model.dtype)
    value = 0.0
    for _ in range(STEPS // UNROLLED):
        model.zero_grad()
        model.forward(x)
        values, slopes, x = unrolled.found()
        model.backward(loss_slope(slopes[1:]))
        fn.clip_grad_norm_(model, 1.0)
        meta.step(model)
        value = float(values[-1].mean())
    return value


def loss_slope(slopes: list[Array]) -> Array:
    """The gradient of the mean of f over problems and steps, by θ after each step: (parameters, steps)."""
    found = np.stack(slopes, axis=-1) / (len(slopes) * len(slopes[0]))
    return found.reshape(-1, len(slopes))


def optimised(problem: Any, optimizer: fn.Optimizer, steps: int = STEPS) -> Array:
    """The values before each step and at the end, (steps + 1, count).

    The problem's parameters are the weights of one unit, whose gradient is its input where that of its
    output is 1.
    """
    size = problem.start.size
    model = fn.Sequential(fn.Linear(size, 1, bias=False), dtype="float64", seed=0)
    with model.edit() as values:
        values["0.weight"][...] = problem.start.ravel()
    found = []
    for step in range(steps + 1):
        theta = np.array(model.parameters()[0]).reshape(problem.start.shape)
        with np.errstate(all="ignore"):  # a rate may be too large
            value, slope = problem.evaluate(theta)
        found.append(value)
        if step == steps or not np.isfinite(value).all():
            break
        model.zero_grad()
        model.forward(np.where(np.isfinite(slope), slope, 0.0).reshape(1, -1))
        model.backward([[1.0]])
        optimizer.step(model)
    found += [np.full_like(found[0], np.inf)] * (steps + 1 - len(found))
    return np.array(found)


def best(
    problems: Callable[[], Any],
    make: Callable[[float], fn.Optimizer],
    steps: int = STEPS,
    rates: tuple[float, ...] = RATES,
) -> tuple[float, Array]:
    """The rate with the least mean of the last ten values, and all values."""
    found = {lr: optimised(problems(), make(lr), steps) for lr in rates}
    rate = min(found, key=lambda lr: float(np.nan_to_num(found[lr][-10:].mean(), nan=np.inf)))
    return rate, found[rate]


def compare(
    problems: Callable[[], Any], weights: Any = None, steps: int = STEPS
) -> dict[str, tuple[float, Array]]:
    """For each optimizer its rate and its values; the learned one has no rate to tune."""
    learned = optimised(problems(), fn.LearnedOptimizer(weights), steps)
    peers = {name: best(problems, make, steps) for name, make in PEERS.items()}
    return {"learned": (LR, learned), **peers}


def table(found: dict[str, tuple[float, Array]]) -> str:
    """Mean values over the problems after some steps."""
    length = len(next(iter(found.values()))[1]) - 1
    marks = [length // 10, length // 4, length // 2, length]
    lines = [f"{'':20}{'rate':>8}" + "".join(f"{f'step {m}':>12}" for m in marks)]
    for name, (rate, values) in found.items():
        cells = "".join(f"{values[m].mean():12.4g}" for m in marks)
        lines.append(f"{name:20}{rate:8g}{cells}")
    return "\n".join(lines)


def draw(found: dict[str, tuple[float, Array]], title: str, path: str) -> None:
    """The curves of the means, as an SVG or another file of matplotlib's."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fastnet", "font.size": 8}):
        figure, ax = plt.subplots(figsize=(5, 3.2), layout="constrained")
        for name, (rate, values) in found.items():
            label = name if name == "learned" else f"{name}, lr {rate:g}"
            ax.semilogy(values.mean(axis=1), label=label, linewidth=2 if name == "learned" else 1)
        ax.set(title=title, xlabel="step", ylabel="mean f")
        ax.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)
        plt.close(figure)


FAMILIES: dict[str, Callable[[np.random.Generator], Any]] = {"quadratics": Quadratics, "nets": Nets}
# Seeds of the problems that validate and test; those of the training come from the option.
VALIDATION, TEST = 10_001, 10_002


FACTORS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the LSTM's output
# Problems unlike those of the training, each with its number of steps.
ELSEWHERE: dict[str, tuple[Callable[[np.random.Generator], Any], int]] = {
    "quadratics, 1000 steps": (Quadratics, 1000),
    "quadratics · 0.001": (lambda random: Scaled(Quadratics(random), 1e-3), STEPS),
    "quadratics · 1000": (lambda random: Scaled(Quadratics(random), 1e3), STEPS),
    "quadratics of 2 numbers": (lambda random: Quadratics(random, 48, 2), STEPS),
    "quadratics of 100 numbers": (lambda random: Quadratics(random, 16, 100), STEPS),
    "nets, 1000 steps": (Nets, 1000),
    "nets of 40 tanh, 64 inputs": (lambda random: Nets(random, 2, 40, small=False), STEPS),
    "nets of 40 ReLU, 64 inputs": (
        lambda random: Nets(random, 2, 40, small=False, activation=relu),
        STEPS,
    ),
    "4 layers of 32 ReLU": (Deep, STEPS),
}


def elsewhere(weights: Any) -> str:
    """On each of ELSEWHERE, the mean of the last ten values: as it is, with its best factor, and Adam."""
    lines = [
        f"{'':28}{'steps':>6}{'start':>10}{'learned':>10}{'tuned':>10}{'lr':>6}{'Adam':>10}{'lr':>6}"
    ]
    for name, (make, steps) in ELSEWHERE.items():

        def problems(make: Any = make) -> Any:
            return make(np.random.default_rng(TEST))

        def with_factor(lr: float) -> fn.Optimizer:
            return fn.LearnedOptimizer(weights, lr)

        plain = optimised(problems(), with_factor(LR), steps)
        factor, tuned = best(problems, with_factor, steps, FACTORS)
        rate, adam = best(problems, fn.Adam, steps, RATES)
        ends = [values[-10:].mean() for values in (plain, tuned, adam)]
        lines.append(
            f"{name:28}{steps:6}{plain[0].mean():10.3g}{ends[0]:10.3g}{ends[1]:10.3g}{factor:6g}"
            f"{ends[2]:10.3g}{rate:6g}"
        )
    return "\n".join(lines)


def tested(family: str) -> Any:
    """Problems of a family that no training has seen."""
    return FAMILIES[family](np.random.default_rng(TEST))


def trained(
    families: list[str], episodes: int, units: int, layers: int, seed: int, lr: float, every: int
) -> dict[str, Array]:
    """The weights with the least values on the problems of the validation, in geometric mean."""
    model = fn.Sequential(Unrolled(units, layers), seed=seed)
    meta = fn.Adam(fn.schedules.CosineAnnealingLR(lr, episodes * STEPS // UNROLLED))
    random, least = np.random.default_rng(seed), np.inf
    kept: dict[str, Array] | None = None
    for number in range(1, episodes + 1):
        family = families[number % len(families)]
        value = episode(model, meta, FAMILIES[family](random))
        if number % every == 0 or number == episodes:
            weights, ends = model[0].weights(), []
            for name in families:
                problem = FAMILIES[name](np.random.default_rng(VALIDATION))
                end = optimised(problem, fn.LearnedOptimizer(weights))[-10:]
                ends.append(float(np.mean(end)))
            score = float(np.exp(np.mean(np.log(ends))))
            shown = ", ".join(f"{n} {e:.4g}" for n, e in zip(families, ends, strict=True))
            print(f"episode {number}: {family} {value:.4g}; validation: {shown}", flush=True)
            if score < least:
                kept, least = weights, score
    if kept is None:
        raise SystemExit("the training diverged: choose a smaller --lr")
    return kept


def main() -> None:
    """Train, compare on problems of a seed of their own, save and draw."""
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.examples.learning_to_learn",
        description="Meta-train an LSTM as an optimizer, and compare it with Adam, RMSprop and SGD.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--family", default="both", choices=("quadratics", "nets", "both"))
    parser.add_argument("--episodes", type=int, default=300, help="problems to learn from")
    parser.add_argument("--units", type=int, default=10, help="of each layer of the LSTM")
    parser.add_argument("--layers", type=int, default=2, help="of the LSTM")
    parser.add_argument("--lr", type=float, default=5e-3, help="of the meta-training's Adam")
    parser.add_argument("--seed", type=int, default=0, help="of weights and problems")
    parser.add_argument("--save", metavar="FILE", default="", help="a safetensors file of weights")
    parser.add_argument("--plot", metavar="FILE", default="", help="the curves, e.g. an SVG")
    parser.add_argument("--shipped", action="store_true", help="compare the shipped weights only")
    parser.add_argument("--elsewhere", action="store_true", help="compare on other problems, too")
    parser.add_argument("--quick", action="store_true", help="10 episodes with 4 units in a layer")
    options = parser.parse_args()
    if min(options.episodes, options.units, options.layers) < 1:
        parser.error("--episodes, --units and --layers: expected integers of at least 1")
    if options.shipped and options.save:
        parser.error("--save: --shipped makes no weights")
    if options.quick:
        options.episodes, options.units, options.layers = 10, 4, 1
    families = ["quadratics", "nets"] if options.family == "both" else [options.family]
    weights = None
    if not options.shipped:
        arguments = options.episodes, options.units, options.layers, options.seed, options.lr
        weights = trained(families, *arguments, every=max(1, options.episodes // 20))
    if options.save:
        made = {n: v for n, v in vars(options).items() if n not in ("save", "plot", "shipped")}
        tensors.write(options.save, {"kind": KIND, "options": made}, weights or {})
    for family in families:
        found = compare(partial(tested, family), weights)
        print(f"\n{family}, each peer at the best of {len(RATES)} rates:\n{table(found)}")
        if options.plot:
            name, dot, ending = options.plot.rpartition(".")
            path = options.plot if len(families) == 1 else f"{name}-{family}{dot}{ending}"
            draw(found, family, path)
    if options.elsewhere:
        print(f"\nelsewhere, the mean of the last ten values:\n{elsewhere(weights)}")


if __name__ == "__main__":
    main()
