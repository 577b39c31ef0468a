"""Smooth activations: y = f(x), dx = dy·f′(x), elementwise; f′ comes from y where this loses no digits."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from fastnet.builder import Builder
from fastnet.data.codes import Code
from fastnet.errors import SMALLEST, check_choice, check_real
from fastnet.formulas import language
from fastnet.formulas.language import (
    Real,
    each,
    erf,
    exp,
    exp_below_0,
    log1p_exp,
    madd,
    maximum,
    minimum,
    where,
)
from fastnet.layers.base import Layer
from fastnet.layers.pointwise import Activation, Elementwise

ROOT_HALF = math.sqrt(0.5)
GAUSSIAN = 1.0 / math.sqrt(2.0 * math.pi)  # the normal density at 0
ROOT_2_OVER_PI = math.sqrt(2.0 / math.pi)


class sigmoid(Elementwise):
    """y = 1 / (1 + e^−x), computed from e^−|x| to avoid overflow; dx = dy·y·(1 − y)."""

    @each
    def forward(x: Real) -> Real:
        """1 / (1 + e^−x) where x ≥ 0, e^x / (1 + e^x) elsewhere."""
        return language.sigmoid(x)

    @each
    def vjp(dy: Real, y: Real) -> Real:
        """dy·y·(1 − y)."""
        return dy * (y * (1 - y))


class tanh(Elementwise):
    """y = tanh(x); dx = dy·(1 − y²)."""

    @each
    def forward(x: Real) -> Real:
        """The hyperbolic tangent."""
        return language.tanh(x)

    @each
    def vjp(dy: Real, y: Real) -> Real:
        """dy·(1 − y²)."""
        return dy * (1 - y * y)


class scaled_tanh(Elementwise):
    """y = amplitude·tanh(slope·x); dx = dy·slope·(amplitude − y²/amplitude)."""

    scalars = ("amplitude", "slope")

    @each
    def forward(x: Real, amplitude: float, slope: float) -> Real:
        """The scaled hyperbolic tangent."""
        return amplitude * language.tanh(slope * x)

    @each
    def vjp(dy: Real, y: Real, amplitude: float, slope: float) -> Real:
        """dy·amplitude·slope·(1 − tanh²)."""
        return dy * (slope * amplitude - slope / amplitude * (y * y))


class linear_tanh(Elementwise):
    """y = t + a·x, t = tanh(x); dx = dy·(1 − t² + a)."""

    outputs: ClassVar = {"y": "B N", "t": "B N"}
    scalars = ("a",)

    @each
    def forward(x: Real, a: float) -> tuple[Real, Real]:
        """Hyperbolic tangent plus line; keeps t because y − a·x loses digits."""
        t = language.tanh(x)
        return t + a * x, t

    @each
    def vjp(dy: Real, t: Real, a: float) -> Real:
        """The line keeps the gradient from vanishing."""
        return dy * ((1 - t * t) + a)


class softsign(Elementwise):
    """y = x/(1 + |x|); dx = dy/(1 + |x|)²."""

    @each
    def forward(x: Real) -> Real:
        """Saturates like 1 − 1/|x|."""
        return x / (1 + abs(x))

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """Computed from x, because 1 − |y| loses digits."""
        a = 1 + abs(x)
        return dy / a / a


class softplus(Elementwise):
    """y = ln(1 + e^(beta·x))/beta, or x where beta·x > bound; dx = dy·sigmoid(beta·x) or dy."""

    scalars = ("beta", "bound")

    @each
    def forward(x: Real, beta: float, bound: float) -> Real:
        """(max(z, 0) + ln(1 + e^−|z|))/beta with z = beta·x."""
        z = beta * x
        return where(z > bound, x, (1 / beta) * (maximum(z, 0) + log1p_exp(-abs(z))))

    @each
    def vjp(dy: Real, x: Real, beta: float, bound: float) -> Real:
        """The logistic function, or 1."""
        z = beta * x
        return where(z > bound, dy, dy * language.sigmoid(z))

    @each
    def curve(tdy: Real, tx: Real, dy: Real, x: Real, beta: float, bound: float) -> Real:
        """The slope jumps where z is the bound; there its derivative is 0."""
        z = beta * x
        bend = dy * tx * (beta * language.sigmoid(-z))
        return where(z > bound, tdy, language.sigmoid(z) * (tdy + where(z < bound, bend, 0)))


class log_sigmoid(Elementwise):
    """y = −ln(1 + e^−x) = min(x, 0) − ln(1 + e^−|x|), s = 1/(1 + eˣ); dx = dy·s."""

    outputs: ClassVar = {"y": "B N", "s": "B N"}

    @each
    def forward(x: Real) -> tuple[Real, Real]:
        """Neither overflows nor cancels; keeps s for the gradient."""
        return minimum(x, 0) - log1p_exp(-abs(x)), language.sigmoid(-x)

    @each
    def vjp(dy: Real, s: Real) -> Real:
        """The logistic function of −x."""
        return dy * s


class gelu(Elementwise):
    """y = x·Φ(x), Φ(x) = (1 + erf(x/√2))/2; dx = dy·(Φ(x) + x·φ(x)), φ the normal density."""

    @each
    def forward(x: Real) -> Real:
        """x times the normal distribution function."""
        half = 0.5 * x
        return madd(half, erf(x * ROOT_HALF), half)

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """The product rule."""
        distribution = madd(0.5, erf(x * ROOT_HALF), 0.5)
        density = GAUSSIAN * exp_below_0(-0.5 * (x * x))
        return dy * madd(x, density, distribution)


class gelu_tanh(Elementwise):
    """y = x·(1 + tanh u)/2, u = √(2/π)·(x + 0.044715·x³); dx = dy·((1 + tanh u)/2 + x·(1 − tanh²u)·u′/2).

    Above |x| = 10, where tanh u is ±1, the formula uses x² = 100, so that nothing overflows.
    """

    @each
    def forward(x: Real) -> Real:
        """The approximation without erf."""
        square = minimum(x * x, 100)
        t = language.tanh(ROOT_2_OVER_PI * x * (1 + 0.044715 * square))
        return 0.5 * x * (1 + t)

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """The product rule."""
        square = minimum(x * x, 100)
        t = language.tanh(ROOT_2_OVER_PI * x * (1 + 0.044715 * square))
        slope = ROOT_2_OVER_PI * (1 + 3 * 0.044715 * square)
        return dy * (0.5 * (1 + t) + 0.5 * x * ((1 - t * t) * slope))

    @each
    def curve(tdy: Real, tx: Real, dy: Real, x: Real) -> Real:
        """As y = x·σ(2u): from σ(2u)·σ(−2u), which does not cancel as 1 − tanh²u does."""
        z = minimum(maximum(x, -10), 10)
        square = z * z
        u = 2 * ROOT_2_OVER_PI * z * (1 + 0.044715 * square)
        p = language.sigmoid(u)
        q = language.sigmoid(-u)
        slope = 2 * ROOT_2_OVER_PI * (1 + 3 * 0.044715 * square)
        both = 2 * slope + 12 * 0.044715 * ROOT_2_OVER_PI * square + z * (q - p) * (slope * slope)
        return tdy * (p + z * (p * q) * slope) + dy * tx * (p * q * both)


class silu(Elementwise):
    """y = x·s, s = sigmoid(x); dx = dy·s·(1 + x·(1 − s))."""

    @each
    def forward(x: Real) -> Real:
        """x times its logistic function."""
        return x * language.sigmoid(x)

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """The product rule."""
        s = language.sigmoid(x)
        return dy * (s * (1 + x * (1 - s)))


class mish(Elementwise):
    """y = x·t, t = tanh(ln(1 + eˣ)) = n/(n + 2), n = eˣ·(eˣ + 2); dx = dy·(t + 4x·eˣ·(eˣ + 1)/(n + 2)²).

    Above x = 40, where t is 1, the formula uses e⁴⁰ for eˣ, so that nothing overflows.
    """

    @each
    def forward(x: Real) -> Real:
        """Needs one exponential."""
        e = exp(minimum(x, 40))
        n = e * (e + 2)
        return x * (n / (n + 2))

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """The product rule."""
        z = minimum(x, 40)
        e = exp(z)
        n = e * (e + 2)
        share = 1 / (n + 2)
        return dy * (n / (n + 2) + z * (4 * e * share * ((e + 1) * share)))


class Sigmoid(Activation):
    """y = 1 / (1 + e^−x), elementwise; never overflows.

    Source: P.-F. Verhulst, "Recherches mathématiques sur la loi d'accroissement de la population", 1845
    (as the logistic curve).
    """

    op = sigmoid


class Tanh(Activation):
    """y = tanh(x) = (eˣ − e^−x)/(eˣ + e^−x), elementwise.

    Source: Y. LeCun et al., "Efficient BackProp", 1998, section 4.4, which prefers it to Sigmoid.
    """

    op = tanh


class ScaledTanh(Activation):
    """y = amplitude·tanh(slope·x), elementwise; by default 1.7159·tanh(2x/3), where f(±1) ≈ ±1.

    amplitude: number > 0 (default 1.7159).
    slope: number > 0 (default 2/3).
    Source: Y. LeCun et al., "Efficient BackProp", 1998, section 4.4.
    """

    op = scaled_tanh

    def __init__(self, amplitude: float = 1.7159, slope: float = 2.0 / 3.0) -> None:
        super().__init__(
            amplitude=check_real("amplitude", amplitude, low=0.0, open_low=True),
            slope=check_real("slope", slope, low=0.0, open_low=True),
        )


class LinearTanh(Activation):
    """y = tanh(x) + a·x, elementwise. The small linear term avoids flat spots.

    a: number (default 0.01).
    Source: Y. LeCun et al., "Efficient BackProp", 1998, section 4.4.
    """

    op = linear_tanh

    def __init__(self, a: float = 0.01) -> None:
        super().__init__(a=check_real("a", a))


class Softsign(Activation):
    """y = x/(1 + |x|), elementwise.

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, section 3.
    """

    op = softsign


class Softplus(Activation):
    """y = ln(1 + e^(beta·x))/beta, elementwise, or x where beta·x > threshold.

    beta: number ≥ 1.2e-38 (default 1).
    threshold: number (default 20). Nothing overflows below it, even if it is large.
    Source: C. Dugas et al., "Incorporating second-order functional knowledge for better option pricing",
    NeurIPS 2000; the threshold is PyTorch's.
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(
            beta=check_real("beta", beta, low=SMALLEST),
            threshold=check_real("threshold", threshold),
        )

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `softplus`."""
        return g.apply(softplus, x=x, beta=self.beta, bound=self.threshold)


class LogSigmoid(Activation):
    """y = −ln(1 + e^−x), elementwise; neither overflows nor cancels.

    Source: the logarithm of Sigmoid, as in the logistic loss; the name is PyTorch's.
    """

    op = log_sigmoid


class GELU(Activation):
    """y = x·Φ(x), elementwise, with Φ(x) = (1 + erf(x/√2))/2 the normal distribution function.

    approximate: "none" (default), or "tanh" for Φ(x) ≈ (1 + tanh(√(2/π)·(x + 0.044715·x³)))/2.
    Source: D. Hendrycks, K. Gimpel, "Gaussian error linear units (GELUs)", arXiv:1606.08415, section 2.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__(approximate=check_choice("approximate", approximate, ("none", "tanh")))

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `gelu` or `gelu_tanh`."""
        return g.apply(gelu_tanh if self.approximate == "tanh" else gelu, x=x)


class SiLU(Activation):
    """y = x·sigmoid(x), elementwise; also called swish.

    Source: S. Elfwing, E. Uchibe, K. Doya, "Sigmoid-weighted linear units for neural network function
    approximation in reinforcement learning", Neural Networks 107, 2018.
    """

    op = silu


class Mish(Activation):
    """y = x·tanh(ln(1 + eˣ)), elementwise.

    Source: D. Misra, "Mish: a self regularized non-monotonic activation function", BMVC 2020, equation 1.
    """

    op = mish


class Identity(Layer):
    """y = x: a placeholder, without cost.

    Source: PyTorch's name for the identity.
    """

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """The columns as they are."""
        return places

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply no op."""
        return x
