"""Schedule-Free SGD and AdamW."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import HyperparameterError, check_int
from fastnet.formulas.language import Numbers, Real, each, formula, madd, sqrt, where
from fastnet.formulas.portable import exp, log, power
from fastnet.op import Array, Op
from fastnet.optim.adam import correction
from fastnet.optim.numbers import BETA, Number
from fastnet.optim.optimizer import SMALLEST_EPS, Optimizer
from fastnet.optim.rules import Rule, mean_square, settled, settled_with
from fastnet.schedules.base import Schedule

BLOCK = 4096  # steps whose weights are added up together


@formula
def free_step(w: Real, gap: Real, h: Real, n: Numbers) -> tuple[Real, Real]:
    """The step along −h from y = w: the new y, and the new gap z − x."""
    moved = madd(-n.push, h, madd(n.pull, gap, w))
    return moved, settled(n.keep * madd(-n.lr, h, gap))


class schedule_free_sgd(Rule):
    """h = g + weight_decay·w; w ← w + pull·gap − push·h; gap ← keep·(gap − lr·h).

    w is y, at which gradients are taken, and gap is z − x. With the share c of the new z in the average x:
    keep = 1 − c, push = lr·(1 − β'·keep) and pull = β·c + (β − β')·keep, where β' is β of the next step.
    """

    state: ClassVar = {"w": "N", "gap": "N"}
    hyper = ("lr", "weight_decay", "pull", "push", "keep")

    @each
    def update(w: Real, gap: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """Gradient descent of z, whose average x moves with it."""
        moved, kept = free_step(w, gap, madd(n.weight_decay, w, g), n)
        return moved, kept


class schedule_free_adamw(Rule):
    """v ← β₂v + (1 − β₂)g²; h = g/(√v·root_scale + eps) + weight_decay·w; then as `schedule_free_sgd`."""

    state: ClassVar = {"w": "N", "gap": "N", "v": "N"}
    hyper = (*schedule_free_sgd.hyper, "root_scale", "beta2", "eps")

    @each
    def update(w: Real, gap: Real, v: Real, g: Real, n: Numbers) -> tuple[Real, Real, Real]:
        """The second moment, then the step of z, whose average x moves with it."""
        second = mean_square(v, g, n.beta2)
        h = madd(n.weight_decay, w, g / madd(sqrt(second), n.root_scale, n.eps))
        moved, kept = free_step(w, gap, h, n)
        return moved, kept, settled_with(second, g)


class to_average(Op):
    """y ← w; w ← x = w − lead·gap, with lead = 1 − β."""

    state: ClassVar = {"y": "N", "w": "N"}  # the reference writes them in this order
    inputs: ClassVar = {"gap": "N"}
    dims = ("N",)
    hyper = ("lead",)

    @each
    def update(y: Real, w: Real, gap: Real, lead: float) -> tuple[Real, Real]:
        """From the point of the gradients to the average; y keeps the bits of the former."""
        return w, madd(-lead, gap, w)


class from_average(Op):
    """w ← y where w is still x = y − lead·gap, else w + lead·gap."""

    state: ClassVar = {"w": "N"}
    inputs: ClassVar = {"y": "N", "gap": "N"}
    dims = ("N",)
    hyper = ("lead",)

    @each
    def update(w: Real, y: Real, gap: Real, lead: float) -> Real:
        """Back to the point of the gradients, to the bit, or to that of a changed average."""
        return where(w == madd(-lead, gap, y), y, madd(lead, gap, w))


class _ScheduleFree(Optimizer, base=True):
    """What both have in common: the weights of the average, and the two points of the parameters."""

    _refused: ClassVar = {"l1_proximal": False, "max_norm": None}  # the only accepted values
    points = (to_average, from_average)
    lr: Any
    r: Any
    weight_lr_power: Any
    warmup_steps: int
    _sums: tuple[tuple[float, float], ...] = ((0.0, 0.0),)  # before each block: greatest lr, sum

    def __setattr__(self, name: str, value: Any) -> None:
        refused = self._refused | {"decoupled_weight_decay": self._decoupled}
        if name in refused and value is not refused[name]:
            raise HyperparameterError(
                f"{name} is {value!r}; {type(self).__name__} takes only {refused[name]}, because it would "
                "change one of three sequences of parameters that belong together"
            )
        if name == "warmup_steps":
            value = check_int(name, value)
        super().__setattr__(name, value)
        vars(self)["_sums"] = _ScheduleFree._sums

    def eval(self, model: Any) -> None:
        """Move a model's parameters to the average x, to evaluate, save or export them."""
        self._move(model, True)

    def train(self, model: Any) -> None:
        """Move a model's parameters back to y, where gradients are taken.

        Where they have changed since `eval`, the changed ones are the new x.
        """
        self._move(model, False)

    def _move(self, model: Any, averaged: bool) -> None:
        self.state(model)  # which refuses what is no model
        with model.training_lock():
            model.move_parameters(self, averaged)

    def family(self) -> set[str]:
        """Also y, which is in a state dict where the parameters are x."""
        return super().family() | {"y"}

    def _unkept(self, averaged: bool) -> set[str]:
        return set() if averaged else {"y"}

    def _momentum(self, at: Any) -> Any:
        """β of the hyper-parameters at some steps."""
        raise NotImplementedError

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        first, count = int(t[0]), len(t)
        rate = at.lr * self._warmup(t)
        beta, following = self._momentum(at), self._momentum(self._at(t + 1))
        share = self._shares(first, count)
        keep = 1.0 - share
        return {
            "lr": rate,
            "weight_decay": at.weight_decay,
            "pull": beta * share + (beta - following) * keep,
            "push": rate * (1.0 - following * keep),
            "keep": keep,
            "lead": 1.0 - beta,
        }

    def _warmup(self, t: Array) -> Array:
        """The factor of lr at steps t (from 0)."""
        return np.minimum((t + 1) / max(1, self.warmup_steps), 1.0)

    def _shares(self, first: int, count: int) -> Array:
        """c of steps first, first + 1, …: the weight of a step over the sum of all so far.

        Always summed in the same blocks, so that the bits do not depend on which steps are requested.
        """
        found, end = np.zeros(count), first + count
        for begin in range(first // BLOCK * BLOCK, end, BLOCK):
            weights, _, sums = self._block(begin, min(BLOCK, end - begin))
            share = np.divide(weights, sums, out=np.zeros_like(sums), where=sums > 0.0)
            skip = max(0, first - begin)
            found[max(0, begin - first) :][: len(share[skip:])] = share[skip:]
        return found

    def _block(self, begin: int, count: int) -> tuple[Array, Array, Array]:
        """Of the steps from a block's begin: the weights, the greatest lr so far, the sums so far."""
        before = self._before(begin // BLOCK)
        t = np.arange(begin, begin + count)
        at = self._at(t)
        rate = np.maximum.accumulate(np.maximum(at.lr * self._warmup(t), before[0]))
        weights = _to_power(t + 1.0, at.r) * _to_power(rate, at.weight_lr_power)
        sums = weights.copy()
        sums[0] += before[1]
        return weights, rate, np.cumsum(sums)

    def _before(self, number: int) -> tuple[float, float]:
        """The greatest lr and the sum of the weights before a block."""
        varying = any(isinstance(n, Schedule) for n in (self.lr, self.r, self.weight_lr_power))
        level = -(-self.warmup_steps // BLOCK)  # from this block on, weights may be all the same
        if not varying and self.r == 0.0 and number > level:
            _, total = self._before(level)
            weights, rate, _ = self._block(level * BLOCK, 1)
            return float(rate[0]), total + (number - level) * BLOCK * float(weights[0])
        known = self._sums
        while len(known) <= number:
            vars(self)["_sums"] = known
            _, rate, sums = self._block((len(known) - 1) * BLOCK, BLOCK)
            known = (*known, (float(rate[-1]), float(sums[-1])))
        vars(self)["_sums"] = known
        return known[number]


def _to_power(base: Array, exponent: Any) -> Array:
    """base ≥ 0 to powers ≥ 0: one for all, or one for each."""
    if np.ndim(exponent) == 0:
        return power(base, float(exponent))
    positive = base > 0.0
    found = exp(exponent * log(np.where(positive, base, 1.0)))
    return np.where(positive | (exponent == 0.0), found, 0.0)


class ScheduleFreeSGD(_ScheduleFree):
    """Schedule-Free SGD: gradients at y = (1 − β)z + βx, steps of z, and their weighted average x.

    h = g + weight_decay·y; z ← z − lr·h; x ← (1 − c)x + c·z with c = s/Σs, where the weight s of step
    t ≥ 1 is t^r·(the greatest lr so far)^weight_lr_power. At first x = y = z.

    A model's parameters are y while it trains, and x while it is evaluated. A Trainer moves them: they are
    x whenever a validation or callback sees the model, and after `fit` and `train_on_batch`. A `fit` also
    sets batchnorm's running statistics to means at x, over at most 50 minibatches of the training data. A
    loop of your own calls `optimizer.eval(model)` before it evaluates, saves or exports the model, and
    `optimizer.train(model)` before it trains on. Whoever changes x between shifts y and z by as much. A
    further fit continues to the bit, because y is kept as a vector of the state while the parameters are x.

    lr: number ≥ 0 (default 1.0). It needs no schedule that ends at 0.
    momentum: β in [0, 1) (default 0.9). The share of x in y.
    weight_decay: number ≥ 0 (default 0).
    warmup_steps: integer ≥ 0 (default 0). Step t of these has lr·t/warmup_steps.
    r: number ≥ 0 (default 0).
    weight_lr_power: number ≥ 0 (default 2).

    The sums use the present lr, r, weight_lr_power and warmup_steps for all steps so far. The package's
    keep the numbers of earlier steps. l1_proximal, max_norm, the other value of decoupled_weight_decay and
    averages by a Trainer are refused.
    Source: A. Defazio et al., "The road less scheduled", NeurIPS 2024, as the package schedulefree has it.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "momentum": BETA,
        "weight_decay": {"low": 0.0},
        "r": {"low": 0.0},
        "weight_lr_power": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 1.0,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        warmup_steps: int = 0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        **shared: Any,
    ) -> None:
        self.lr, self.momentum, self.weight_decay = lr, momentum, weight_decay
        self.warmup_steps, self.r, self.weight_lr_power = warmup_steps, r, weight_lr_power
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`schedule_free_sgd`."""
        return schedule_free_sgd

    def _momentum(self, at: Any) -> Any:
        return at.momentum


class ScheduleFreeAdamW(_ScheduleFree):
    """Schedule-Free AdamW: as ScheduleFreeSGD, with Adam's step h and β₁ as β.

    v ← β₂v + (1 − β₂)g²; h = g/(√(v/(1 − β₂ᵗ)) + eps) + weight_decay·y; z ← z − lr·h.

    lr: number ≥ 0 (default 2.5e-3).
    betas: two numbers in [0, 1) (default (0.9, 0.999)).
    eps: number ≥ 1.2e-38 (default 1e-8).
    weight_decay: number ≥ 0 (default 0). Decoupled: not part of g.
    warmup_steps, r, weight_lr_power: as for ScheduleFreeSGD, and so are the points of the parameters.
    Source: A. Defazio et al., "The road less scheduled", NeurIPS 2024, as the package schedulefree has it.
    """

    _decoupled = True
    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "eps": {"low": SMALLEST_EPS},
        "weight_decay": {"low": 0.0},
        "r": {"low": 0.0},
        "weight_lr_power": {"low": 0.0},
    }

    def __init__(
        self,
        lr: Number = 2.5e-3,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        warmup_steps: int = 0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        **shared: Any,
    ) -> None:
        self.lr, self.betas, self.eps, self.weight_decay = lr, betas, eps, weight_decay
        self.warmup_steps, self.r, self.weight_lr_power = warmup_steps, r, weight_lr_power
        super().__init__(**shared)

    @property
    def op(self) -> type[Op]:
        """`schedule_free_adamw`."""
        return schedule_free_adamw

    def _momentum(self, at: Any) -> Any:
        return at.betas[0]

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        beta2 = at.betas[1]
        return super()._columns(at, t) | {
            "root_scale": 1.0 / np.sqrt(correction(beta2, int(t[0]) + 1, len(t))),
            "beta2": beta2,
            "eps": at.eps,
        }
