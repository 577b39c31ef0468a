"""YellowFin: momentum SGD that tunes rate and momentum by itself."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import check_int
from fastnet.formulas.language import Real, each, where
from fastnet.op import Array, Op
from fastnet.optim.numbers import BETA, Number
from fastnet.optim.optimizer import SMALLEST_EPS
from fastnet.optim.rules import Rule
from fastnet.optim.tuned import (
    CLIPPED,
    DISTANCE,
    HIGHEST,
    KEPT,
    LOWEST,
    MEAN_NORM,
    MEAN_SQUARE,
    MEASURED,
    MEASURES,
    MOMENTUM,
    NORMS,
    PRODUCTS,
    RATE,
    SQUARES,
    STEPS,
    WEIGHT,
    Tuned,
    past_products,
)

FIRST_RATE = 1e-4  # of the first step, after which there is a variance
GROWTH = 100.0  # how much longer than the greatest curvature so far ‖d‖² may be in averages
WINDOW = 128  # squared norms that are kept


class yellowfin_measure(Op):
    """ratio ← (w − before + pushed)/moved; moved ← w − before; before ← w.

    w is x_t, `before` x_{t−1}, `moved` x_{t−1} − x_{t−2} and `pushed` the part of the last step that is not
    momentum. ratio is 0 where an element has not moved; zeros are no measurements.
    """

    state: ClassVar = {"ratio": "N", "moved": "N", "before": "N"}
    inputs: ClassVar = {"w": "N", "pushed": "N"}
    dims = ("N",)

    @each
    def update(moved: Real, before: Real, w: Real, pushed: Real) -> tuple[Real, Real, Real]:
        """The momentum of each element, whoever has moved it."""
        way = w - before
        ratio = where(moved == 0, 0, (way + pushed) / where(moved == 0, 1, moved))
        return ratio, way, w


class yellowfin_median(Op):
    """tuning[MEASURED] ← the median of all elements of `ratio` but zeros; the momentum if there are none.

    Of an even number of elements it is the mean of the two in the middle.
    """

    state: ClassVar = {"tuning": "float64 16"}
    inputs: ClassVar = {"ratio": "N"}
    dims = ("N",)
    once = True

    @staticmethod
    def update(tuning: Array, ratio: Array) -> None:
        """NaN is no measurement either."""
        found = np.sort(ratio[(ratio != 0) & (ratio == ratio)].astype(np.float64))
        count = len(found)
        tuning[MEASURED] = (
            0.5 * (found[(count - 1) // 2] + found[count // 2]) if count else tuning[MOMENTUM]
        )


def yellowfin_tune_update(
    tuning: Array,
    recent: Array,
    smoothing: float,
    window: float,
    logs: float,
    clipping: float,
    closed: float,
    gamma: float,
    eps: float,
) -> None:
    """Numbers alone, so that Numba compiles this function for its backends.

    Σpast² after the step is made of the sums before it, so that one pass over the gradients is enough.
    """
    t, fresh, steps = tuning, 1.0 - smoothing, max(tuning[STEPS], 0.0)
    t[KEPT] = 1.0
    if clipping > 0.0 and steps >= 1.0:
        before = t[HIGHEST] / t[WEIGHT]
        limit = GROWTH * (np.exp(before) if logs > 0.0 else before)
        if t[SQUARES] > limit:
            t[KEPT] = np.sqrt(limit / t[SQUARES])
    square = t[KEPT] * t[KEPT] * t[SQUARES]
    t[WEIGHT] = smoothing * t[WEIGHT] + fresh
    # Algorithm 2: the range of curvature.
    now = int(steps)
    recent[now % WINDOW] = square + eps
    top = bottom = recent[now % WINDOW]
    for i in range(max(0, now + 1 - int(window)), now):
        curvature = recent[i % WINDOW]
        top, bottom = max(top, curvature), min(bottom, curvature)
    if logs > 0.0:
        top, bottom = np.log(top), np.log(bottom)
    t[HIGHEST] = smoothing * t[HIGHEST] + fresh * top
    t[LOWEST] = smoothing * t[LOWEST] + fresh * bottom
    highest, lowest = t[HIGHEST] / t[WEIGHT], t[LOWEST] / t[WEIGHT]
    if logs > 0.0:
        highest, lowest = np.exp(highest), np.exp(lowest)
    # Algorithm 3: the variance, E‖d‖² − ‖E d‖².
    t[MEAN_SQUARE] = smoothing * t[MEAN_SQUARE] + fresh * square
    mixed, own = 2.0 * smoothing * fresh * t[KEPT], fresh * fresh
    of_mean = smoothing * smoothing * t[NORMS] + mixed * t[PRODUCTS] + own * square
    variance = max(t[MEAN_SQUARE] / t[WEIGHT] - of_mean / (t[WEIGHT] * t[WEIGHT]), eps)
    # Algorithm 4: the distance to the optimum.
    t[MEAN_NORM] = smoothing * t[MEAN_NORM] + fresh * np.sqrt(square)
    ratio = t[MEAN_NORM] / (t[MEAN_SQUARE] + eps * t[WEIGHT])
    t[DISTANCE] = smoothing * t[DISTANCE] + fresh * ratio
    reach = (t[DISTANCE] / t[WEIGHT] + eps) * lowest
    # SingleStep: x = √μ minimises x²·distance² + (1 − x)⁴·variance/lowest², so y = x − 1 is the real root
    # of y³ + p·y + p. Cardano's formula loses y to rounding where p is large, but x = y²/(y² + p) does
    # not, as any y near −1 serves then.
    p, root = reach * reach / (2.0 * variance), 1.0
    if p != 0.0:
        u = (0.5 * p * (1.0 + np.sqrt(1.0 + 4.0 * p / 27.0))) ** (1.0 / 3.0)
        y = min(max(p / (3.0 * u) - u, -1.0), 0.0)
        root = y * y / (y * y + p)
    dynamic = np.sqrt(max(highest / lowest, 1.0))
    least = (dynamic - 1.0) / (dynamic + 1.0)
    momentum, rate = max(root * root, least * least), FIRST_RATE
    if steps >= 1.0:
        rest = 1.0 - np.sqrt(momentum)
        rate = rest * rest / lowest * min((steps + 1.0) / (10.0 * window), 1.0)
    else:
        momentum = 0.0
    if closed > 0.0:  # algorithm 5
        t[MEASURES] += 1.0
        change = momentum - t[MEASURED] if t[MEASURES] > 2.0 else 0.0
        momentum = t[MOMENTUM] + gamma * change
    else:
        t[MEASURES] = 0.0
    t[RATE], t[MOMENTUM], t[STEPS] = rate, momentum, steps + 1.0
    t[CLIPPED] = 1.0
    if clipping > 0.0 and t[SQUARES] > highest:
        t[CLIPPED] = np.sqrt(highest / t[SQUARES])
    t[SQUARES] = t[PRODUCTS] = t[NORMS] = 0.0


class yellowfin_tune(Op):
    """The numbers of a step, from the sums of `past_products` (see YellowFin).

    recent[i % 128] is ‖d‖² + eps of step i from 0; the last `window` of them give the range of curvature.
    """

    state: ClassVar = {"tuning": "float64 16", "recent": f"float64 {WINDOW}"}
    hyper = ("smoothing", "window", "logs", "clipping", "closed", "gamma", "eps")
    once = True
    update = staticmethod(yellowfin_tune_update)


class yellowfin(Rule):
    """d = g + weight_decay·w; past ← smoothing·past + (1 − smoothing)·kept·d;
    v ← momentum·v − rate·clipped·d; w ← (1 − rate·decay)·w + v.

    rate is lr·tuning[RATE]; momentum, kept and clipped are those of `tuning`.
    """

    state: ClassVar = {"w": "N", "v": "N", "past": "N"}
    inputs: ClassVar = {**Rule.inputs, "tuning": "float64 16"}
    hyper = ("lr", "weight_decay", "decay", "smoothing")

    @staticmethod
    def update(
        w: Array,
        v: Array,
        past: Array,
        g: Array,
        tuning: Array,
        lr: float,
        weight_decay: float,
        decay: float,
        smoothing: float,
    ) -> None:
        """The step, and the mean of the gradients."""
        t, d = tuning.tolist(), weight_decay * w + g
        rate = lr * t[RATE]
        past[...] = _settled(smoothing * past + ((1.0 - smoothing) * t[KEPT]) * d)
        v[...] = _settled(t[MOMENTUM] * v - (rate * t[CLIPPED]) * d)
        w[...] = (1.0 - rate * decay) * w + v


class yellowfin_closed(Rule):
    """As `yellowfin`; pushed ← rate·clipped·d + rate·decay·w, the part of the step that is not momentum."""

    state: ClassVar = {"w": "N", "v": "N", "past": "N", "pushed": "N"}
    inputs: ClassVar = yellowfin.inputs
    hyper = yellowfin.hyper

    @staticmethod
    def update(
        w: Array,
        v: Array,
        past: Array,
        pushed: Array,
        g: Array,
        tuning: Array,
        lr: float,
        weight_decay: float,
        decay: float,
        smoothing: float,
    ) -> None:
        """The same step."""
        t, d = tuning.tolist(), weight_decay * w + g
        rate = lr * t[RATE]
        pushed[...] = (rate * t[CLIPPED]) * d + (rate * decay) * w
        yellowfin.update(w, v, past, g, tuning, lr, weight_decay, decay, smoothing)


def _settled(v: Array) -> Array:
    """v, with 0 for what is smaller than the smallest normal number (see `rules`)."""
    return np.where(np.abs(v) < np.finfo(v.dtype).tiny, v.dtype.type(0), v)


class YellowFin(Tuned):
    """YellowFin: momentum SGD, v ← μv − lr·α·d and w ← w + v, which tunes rate α and momentum μ itself.

    d = g + weight_decay·w over all parameters. E x is the average e ← βe + (1 − β)x over the steps, divided
    by 1 − βᵗ at step t ≥ 1. ‖d‖² is the measure of curvature:
    range: h_max and h_min are averages of the greatest and of the least ‖d‖² + eps of the last `window`
        steps: with `log_smoothing` exp(E ln …), else E;
    variance: C = max(E‖d‖² − ‖E d‖², eps);
    distance to the optimum: D = E(E‖d‖/(E‖d‖² + eps)) + eps;
    tuning: √μ = max(x, (√(h_max/h_min) − 1)/(√(h_max/h_min) + 1)), where x minimises
        x²D² + (1 − x)⁴C/h_min², and α = (1 − √μ)²/h_min·min(1, t/(10·window)).
    The first step, before there is a variance, has μ = 0 and α = 10⁻⁴.

    With `adaptive_clipping` the step takes d at length √h_max at most, and the averages take it at 10√h_max
    at most, with the h_max of the step before. So one exploding gradient does little harm.

    `closed_loop` is the form for asynchronous training, in which others move the parameters too. It
    measures the total momentum, the median over all elements of (x_t − x_{t−1} + p)/(x_{t−1} − x_{t−2}).
    x_t is where the parameters are when step t begins, and p the part of the last step that was not
    momentum. It then moves μ by gamma·(target − total), towards a total that is the target, the μ of above.
    Where nobody else moves the parameters, the total is the last μ, which then follows the target within
    some 1/gamma steps. Others are threads or processes that add to the same parameters, averages over
    workers, and max_norm. It takes four more vectors of memory, and the median takes some 100 passes over
    one of them.

    ‖d‖² measures curvature while gradients are noisy. Where a net fits its training data, they vanish and
    curvature does not: α then grows too large, and the loss rises again. A smaller lr, or a schedule that
    falls, helps.

    α and μ are the same for all groups. A group may have its own lr, a factor of α, and its own
    weight_decay, l1 and max_norm. l1_proximal is refused. `tuned` shows α and μ.

    lr: number ≥ 0 (default 1). A factor of α.
    beta: β, number in [0, 1) (default 0.999).
    window: integer in [1, 128] (default 20).
    weight_decay: number ≥ 0 (default 0).
    log_smoothing: bool (default False, as in algorithm 2). True lets h_min follow a fall of the gradients
        faster, as the authors' code does, and so α rise faster.
    adaptive_clipping: bool (default True).
    closed_loop: bool (default False).
    gamma: number ≥ 0 (default 0.01), for closed_loop.
    eps: number ≥ 1.2e-38 (default 1e-6).
    Source: J. Zhang, I. Mitliagkas, "YellowFin and the art of momentum tuning", MLSys 2019,
    arXiv:1706.03471, algorithms 1 to 5; the first rate, eps and what else they leave open as in the
    authors' code.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "beta": BETA,
        "weight_decay": {"low": 0.0},
        "gamma": {"low": 0.0},
        "eps": {"low": SMALLEST_EPS},
    }
    _not_in_groups = (
        *("beta", "window", "log_smoothing", "adaptive_clipping"),
        *("closed_loop", "gamma", "eps"),
    )

    def __init__(
        self,
        lr: Number = 1.0,
        beta: Number = 0.999,
        window: int = 20,
        weight_decay: Number = 0.0,
        log_smoothing: bool = False,
        adaptive_clipping: bool = True,
        closed_loop: bool = False,
        gamma: Number = 0.01,
        eps: Number = 1e-6,
        **shared: Any,
    ) -> None:
        self.lr, self.beta, self.window, self.weight_decay = lr, beta, window, weight_decay
        self.log_smoothing, self.adaptive_clipping = log_smoothing, adaptive_clipping
        self.closed_loop, self.gamma, self.eps = closed_loop, gamma, eps
        super().__init__(**shared)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "window":
            value = check_int(name, value, low=1, high=WINDOW)
        super().__setattr__(name, value)

    @property
    def op(self) -> type[Op]:
        """`yellowfin` or `yellowfin_closed`."""
        return yellowfin_closed if self.closed_loop else yellowfin

    def passes(self) -> list[type[Op]]:
        """The sums, the numbers made of them, and the step."""
        found, closed = super().passes(), self.closed_loop
        at = found.index(self.op)
        measured = [yellowfin_measure, past_products, yellowfin_median]
        sums = measured if closed else [past_products]
        return [*found[:at], *sums, yellowfin_tune, *found[at:]]

    def kept(self) -> set[str]:
        """Also where the parameters were, for closed_loop."""
        return super().kept() | ({"moved", "before"} if self.closed_loop else set())

    def family(self) -> set[str]:
        """Also where the parameters were, for closed_loop."""
        return super().family() | {"moved", "before"}

    def tuned(self, model: Any) -> dict[str, float]:
        """α and μ of a model's last step: {"lr": α, "momentum": μ}; 0 before the first.

        With closed_loop also "total_momentum", the measured one.
        """
        names = {"lr": RATE, "momentum": MOMENTUM}
        if self.closed_loop:
            names["total_momentum"] = MEASURED
        return {name: self._number(model, place) for name, place in names.items()}

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        return {
            "smoothing": at.beta,
            "window": self.window,
            "logs": float(self.log_smoothing),
            "clipping": float(self.adaptive_clipping),
            "closed": float(self.closed_loop),
            "gamma": at.gamma,
            "eps": at.eps,
            "decay": self._decay(at),
        }
