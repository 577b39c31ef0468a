"""Rectifiers and other piecewise functions. At a kink, where f′ jumps, it has PyTorch's value.

relu′(0) = 0, leaky_relu′(0) = negative_slope, elu′(0) = alpha; at a bound of a clamp f′ = 0.
"""

from __future__ import annotations

from fastnet.errors import HyperparameterError, check_real
from fastnet.formulas.language import Real, each, exp_below_0, expm1, maximum, minimum, where
from fastnet.layers.pointwise import Activation, Elementwise

SELU_SCALE, SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
SIXTH, THIRD = 1.0 / 6.0, 1.0 / 3.0


class relu(Elementwise):
    """y = max(x, 0); dx = 0 where y ≤ 0, else dy. NaN stays NaN."""

    @each
    def forward(x: Real) -> Real:
        """The positive part."""
        return where(x <= 0, 0, x)

    @each
    def vjp(dy: Real, y: Real) -> Real:
        """The gradient passes where the output is positive, or NaN."""
        return where(y <= 0, 0, dy)


class leaky_relu(Elementwise):
    """y = x where x > 0, else negative_slope·x; dx = dy or negative_slope·dy."""

    scalars = ("negative_slope",)

    @each
    def forward(x: Real, negative_slope: float) -> Real:
        """Keeps x for the gradient: with a negative slope, y does not tell the sign of x."""
        return where(x > 0, x, negative_slope * x)

    @each
    def vjp(dy: Real, x: Real, negative_slope: float) -> Real:
        """The gradient, times the slope where x is not positive."""
        return where(x > 0, dy, negative_slope * dy)


class elu(Elementwise):
    """y = x where x > 0, else alpha·(eˣ − 1); dx = dy or dy·alpha·eˣ."""

    scalars = ("alpha",)

    @each
    def forward(x: Real, alpha: float) -> Real:
        """Saturates at −alpha."""
        return where(x > 0, x, alpha * expm1(minimum(x, 0)))

    @each
    def vjp(dy: Real, x: Real, alpha: float) -> Real:
        """Computed from x, because y + alpha loses digits where y is near −alpha."""
        return where(x > 0, dy, dy * (alpha * exp_below_0(minimum(x, 0))))

    @each
    def curve(tdy: Real, tx: Real, dy: Real, x: Real, alpha: float) -> Real:
        """Below 0 the slope is its own derivative; at 0, where it jumps, that is 0."""
        slope = alpha * exp_below_0(minimum(x, 0))
        return where(x > 0, tdy, slope * (tdy + where(x < 0, dy * tx, 0)))


class selu(Elementwise):
    """y = scale·x where x > 0, else scale·alpha·(eˣ − 1), with the paper's two constants."""

    @each
    def forward(x: Real) -> Real:
        """A scaled `elu`."""
        return where(x > 0, SELU_SCALE * x, SELU_SCALE * SELU_ALPHA * expm1(minimum(x, 0)))

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """A scaled gradient of `elu`."""
        return dy * where(x > 0, SELU_SCALE, SELU_SCALE * SELU_ALPHA * exp_below_0(minimum(x, 0)))

    @each
    def curve(tdy: Real, tx: Real, dy: Real, x: Real) -> Real:
        """That of `elu`, scaled."""
        slope = SELU_SCALE * SELU_ALPHA * exp_below_0(minimum(x, 0))
        return where(x > 0, SELU_SCALE * tdy, slope * (tdy + where(x < 0, dy * tx, 0)))


class hardtanh(Elementwise):
    """y = min(max(x, min_val), max_val); dx = dy strictly between the bounds, else 0."""

    scalars = ("min_val", "max_val")

    @each
    def forward(x: Real, min_val: float, max_val: float) -> Real:
        """The clamp."""
        return minimum(maximum(x, min_val), max_val)

    @each
    def vjp(dy: Real, x: Real, min_val: float, max_val: float) -> Real:
        """The gradient passes between the bounds, and where x is NaN."""
        return where((x <= min_val) | (x >= max_val), 0, dy)


class hardsigmoid(Elementwise):
    """y = min(max(x + 3, 0), 6)/6; dx = dy/6 where −3 < x < 3, else 0."""

    @each
    def forward(x: Real) -> Real:
        """A line, clamped."""
        return minimum(maximum(x + 3, 0), 6) * SIXTH

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """The gradient passes where the line is not clamped, and where x is NaN."""
        return where((x <= -3) | (x >= 3), 0, dy * SIXTH)


class hardswish(Elementwise):
    """y = x·min(max(x + 3, 0), 6)/6; dx = 0, dy·(x/3 + ½) or dy where x ≤ −3, between, or x ≥ 3."""

    @each
    def forward(x: Real) -> Real:
        """x times its `hardsigmoid`."""
        return x * (minimum(maximum(x + 3, 0), 6) * SIXTH)

    @each
    def vjp(dy: Real, x: Real) -> Real:
        """A line between two constants."""
        return where(x <= -3, 0, where(x >= 3, dy, dy * (x * THIRD + 0.5)))


class ReLU(Activation):
    """y = max(x, 0), elementwise; the derivative at 0 is 0. NaN stays NaN.

    Source: V. Nair, G. E. Hinton, "Rectified linear units improve restricted Boltzmann machines",
    ICML 2010.
    """

    op = relu


class LeakyReLU(Activation):
    """y = x where x > 0, else negative_slope·x; the derivative at 0 is negative_slope.

    negative_slope: number (default 0.01).
    Source: A. L. Maas, A. Y. Hannun, A. Y. Ng, "Rectifier nonlinearities improve neural network
    acoustic models", ICML workshop 2013.
    """

    op = leaky_relu

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=check_real("negative_slope", negative_slope))


class ELU(Activation):
    """y = x where x > 0, else alpha·(eˣ − 1), elementwise; the derivative at 0 is alpha.

    alpha: number (default 1). With 1 the derivative has no jump.
    Source: D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by
    exponential linear units (ELUs)", ICLR 2016, equation 15.
    """

    op = elu

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=check_real("alpha", alpha))


class SELU(Activation):
    """y = λ·x where x > 0, else λ·α·(eˣ − 1), with λ ≈ 1.0507 and α ≈ 1.6733, elementwise.

    With weights from N(0, 1/fan_in) (LecunNormal), activations keep mean 0 and variance 1 through the net.
    The derivative at 0 is λ·α.
    Source: G. Klambauer et al., "Self-normalizing neural networks", NeurIPS 2017, equation 2 and its
    appendix for the digits of λ and α.
    """

    op = selu


class Hardtanh(Activation):
    """y = min(max(x, min_val), max_val), elementwise; the derivative at both bounds is 0.

    min_val, max_val: numbers with min_val < max_val (default −1 and 1).
    Source: R. Collobert, "Large scale machine learning", thesis, Université Paris VI, 2004.
    """

    op = hardtanh

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        low, high = check_real("min_val", min_val), check_real("max_val", max_val)
        if not low < high:
            raise HyperparameterError(
                f"min_val is {min_val!r} and max_val is {max_val!r}; expected min_val < max_val"
            )
        super().__init__(min_val=low, max_val=high)


class ReLU6(Activation):
    """y = min(max(x, 0), 6), elementwise; the derivative at 0 and at 6 is 0.

    Source: A. Krizhevsky, "Convolutional deep belief networks on CIFAR-10", 2010.
    """

    op = hardtanh
    min_val, max_val = 0.0, 6.0


class Hardsigmoid(Activation):
    """y = min(max(x + 3, 0), 6)/6, elementwise; the derivative at −3 and 3 is 0.

    Source: A. Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
    """

    op = hardsigmoid


class Hardswish(Activation):
    """y = x·min(max(x + 3, 0), 6)/6, elementwise; the derivative is 0 at −3 and 1 at 3.

    Source: A. Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2.
    """

    op = hardswish
