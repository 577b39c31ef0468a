"""Muon."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from fastnet.errors import check_choice, check_int
from fastnet.formulas.language import Numbers, Real, each, madd
from fastnet.op import Array, Op
from fastnet.optim.adam import AdamW, adam
from fastnet.optim.gradients import SCALE
from fastnet.optim.numbers import BETA, Number
from fastnet.optim.optimizer import SMALLEST_EPS, Optimizer
from fastnet.optim.rules import Rule, mean, settled, vectors_of


class muon(Rule):
    """m ← momentum·m + (1 − momentum)·(g + weight_decay·w); w ← shrink·w."""

    state: ClassVar = {"w": "N", "m": "N"}
    hyper = ("weight_decay", "shrink", "momentum")

    @each
    def update(w: Real, m: Real, g: Real, n: Numbers) -> tuple[Real, Real]:
        """The moment; the passes after it make the step."""
        d = madd(n.weight_decay, w, g)
        return n.shrink * w, settled(mean(m, d, n.momentum))


class muon_direction(Op):
    """d = ahead·m + (1 − ahead)·(g + weight_decay·w), with weight_decay > 0 only where w is unchanged."""

    state: ClassVar = {"d": "N"}
    inputs: ClassVar = {"w": "N", "m": "N", "g": "N"}
    dims = ("N",)
    hyper = ("weight_decay", "ahead")

    @each
    def update(w: Real, m: Real, g: Real, n: Numbers) -> Real:
        """Nesterov's direction; ahead = 1 is the moment itself."""
        return madd(n.ahead, m, (1.0 - n.ahead) * madd(n.weight_decay, w, g))


class unit_length(Op):
    """d ← d / max(‖d‖, eps), the norm in float64."""

    state: ClassVar = {"d": "I O"}
    dims = ("I", "O")
    hyper = ("eps",)

    @staticmethod
    def update(d: Array, eps: float) -> None:
        """Then no singular value exceeds 1."""
        norm = np.sqrt(np.square(d, dtype=np.float64).sum())
        if not np.isfinite(norm):
            norm = np.sqrt(np.square(SCALE * d.astype(np.float64)).sum()) / SCALE
        d *= 1.0 / (eps if norm < eps else norm)


class newton_schulz(Op):
    """d ← linear·d + (cubic·s + quintic·s²)·d, with s = d·dᵀ; for a tall d the same of dᵀ.

    Each singular value σ of d becomes linear·σ + cubic·σ³ + quintic·σ⁵. `before`, `s` and `p` are memory; s
    and p use as much of it as their m × m numbers take, m = min(I, O).
    """

    state: ClassVar = {"d": "I O", "before": "I O", "s": "I O", "p": "I O"}
    dims = ("I", "O")
    hyper = ("linear", "cubic", "quintic")

    @staticmethod
    def update(
        d: Array, before: Array, s: Array, p: Array, linear: float, cubic: float, quintic: float
    ) -> None:
        """3 products: 2m²n flops for s, 2m³ for p, 2m²n for d, with n = max(I, O)."""
        wide, m = d.shape[0] <= d.shape[1], min(d.shape)
        square, mixed = (a.reshape(-1)[: m * m].reshape(m, m) for a in (s, p))
        np.matmul(*((d, d.T) if wide else (d.T, d)), out=square)
        scaled = before.reshape(-1)[: m * m].reshape(m, m)
        np.multiply(square, quintic, out=scaled)
        mixed[...] = cubic * square + scaled @ square
        np.copyto(before, d)
        d[...] = linear * before + (mixed @ before if wide else before @ mixed)


class muon_step(Op):
    """w ← w − lr·r·d, with r = √max(1, O/I), or 0.2·√max(I, O) where `matched` is 1."""

    state: ClassVar = {"w": "I O"}
    inputs: ClassVar = {"d": "I O"}
    dims = ("I", "O")
    hyper = ("lr", "matched")

    @staticmethod
    def update(w: Array, d: Array, lr: float, matched: float) -> None:
        """I inputs and O outputs."""
        inputs, outputs = w.shape
        size = 0.2 * max(w.shape) ** 0.5 if matched else max(1.0, outputs / inputs) ** 0.5
        w -= (lr * size) * d


class Muon(Optimizer):
    """Muon for matrices: m ← μm + (1 − μ)g, w ← w·(1 − lr·weight_decay) − lr·r·orthogonal(d).

    d = (1 − μ)g + μm with `nesterov`, else m. orthogonal(d) is d/max(‖d‖, eps) after ns_steps iterations
    x ← a·x + (b·xxᵀ + c·(xxᵀ)²)·x, which bring singular values near 1, in the model's dtype (in PyTorch
    bfloat16). r = √max(1, out/in), or 0.2·√max(in, out) with adjust_lr_fn="match_rms_adamw".

    Vectors, and groups with orthogonal=False, are AdamW's, with this lr, weight_decay and betas. The last
    layer and the biases should be such a group, with a rate of its own.

    An m × n matrix, m ≤ n, costs ns_steps·(4m²n + 2m³) flops a step. The products of training itself cost
    6Bmn with minibatches of B rows: with five iterations a square matrix costs 5m/B times as much again.

    lr: number ≥ 0 (default 1e-3).
    weight_decay: number ≥ 0 (default 0.1).
    momentum: μ, number in [0, 1) (default 0.95).
    nesterov: bool (default True).
    ns_coefficients: three numbers a, b, c (default (3.4445, -4.775, 2.0315)).
    eps: number ≥ 1.2e-38 (default 1e-7).
    ns_steps: integer in [1, 99] (default 5).
    adjust_lr_fn: "original" (default) or "match_rms_adamw".
    betas: two numbers in [0, 1) (default (0.9, 0.999)), of AdamW.
    orthogonal: bool (default True).
    Sources: K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024, as PyTorch
    2.13's code has it; "match_rms_adamw": J. Liu et al., "Muon is scalable for LLM training",
    arXiv:2502.16982.
    """

    _ranges: ClassVar = {
        "lr": {"low": 0.0},
        "weight_decay": {"low": 0.0},
        "momentum": BETA,
        "eps": {"low": SMALLEST_EPS},
    }
    _several: ClassVar = {**Optimizer._several, "ns_coefficients": ({}, {}, {})}
    _decoupled = True

    def __init__(
        self,
        lr: Number = 1e-3,
        weight_decay: Number = 0.1,
        momentum: Number = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[Number, Number, Number] = (3.4445, -4.775, 2.0315),
        eps: Number = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str = "original",
        betas: tuple[Number, Number] = (0.9, 0.999),
        orthogonal: bool = True,
        **shared: Any,
    ) -> None:
        self.lr, self.weight_decay, self.momentum = lr, weight_decay, momentum
        self.nesterov, self.ns_coefficients, self.eps = nesterov, ns_coefficients, eps
        self.ns_steps, self.adjust_lr_fn, self.betas = ns_steps, adjust_lr_fn, betas
        self.orthogonal = orthogonal
        super().__init__(**shared)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "ns_steps":
            value = check_int(name, value, low=1, high=99)
        if name == "adjust_lr_fn":
            value = check_choice(name, value, ("original", "match_rms_adamw"))
        super().__setattr__(name, value)

    @property
    def op(self) -> type[Op]:
        """`muon`."""
        return muon

    def passes(self) -> list[type[Op]]:
        """The moment, its direction made orthogonal, and the step."""
        found, rounds = super().passes(), [newton_schulz] * self.ns_steps
        at = found.index(muon) + 1
        return [*found[:at], muon_direction, unit_length, *rounds, muon_step, *found[at:]]

    def family(self) -> set[str]:
        """The vectors of `muon` and of AdamW."""
        return super().family() | vectors_of(adam)

    def _kind(self, dimensions: int) -> int:
        return int(dimensions != 2)

    def _of(self, kind: int) -> Optimizer:
        if kind == 0 and self.orthogonal:
            return self
        names = "l1", "l1_proximal", "max_norm", "decoupled_weight_decay"
        shared = {name: getattr(self, name) for name in names}
        return AdamW(self.lr, self.betas, weight_decay=self.weight_decay, **shared)

    def _columns(self, at: Any, t: Array) -> dict[str, Any]:
        linear, cubic, quintic = at.ns_coefficients
        return {
            "momentum": at.momentum,
            "ahead": at.momentum if self.nesterov else 1.0,
            "eps": at.eps,
            "linear": linear,
            "cubic": cubic,
            "quintic": quintic,
            "matched": float(self.adjust_lr_fn == "match_rms_adamw"),
        }
