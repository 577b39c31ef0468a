"""Initialisers whose standard deviation keeps variances from layer to layer."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastnet.errors import HyperparameterError, check_choice, check_real
from fastnet.init.base import Array, Draw, Initializer, Shape
from fastnet.init.gains import calculate_gain, check_nonlinearity, squared_gain


class _Scaled(Initializer):
    """Base of initialisers with mean 0 and a standard deviation that depends on the layer's size."""

    def std(self, fan_in: int, fan_out: int) -> float:
        """The standard deviation σ."""
        raise NotImplementedError


class _ScaledUniform(_Scaled):
    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return draw.uniform(shape, math.sqrt(3.0) * self.std(fan_in, fan_out))


class _ScaledNormal(_Scaled):
    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return draw.normal(shape, self.std(fan_in, fan_out))


@dataclass(frozen=True, eq=False, repr=False)
class _Kaiming(_Scaled):
    a: float = 0.0
    mode: str = "fan_in"
    nonlinearity: str = "leaky_relu"

    def __post_init__(self) -> None:
        check_real("a", self.a)
        check_choice("mode", self.mode, ("fan_in", "fan_out"))
        check_nonlinearity(self.nonlinearity)
        if self.a and self.nonlinearity != "leaky_relu":
            raise HyperparameterError(
                f"a is {self.a!r} with nonlinearity={self.nonlinearity!r}; it is the slope of "
                "leaky_relu, expected 0 for others"
            )

    def std(self, fan_in: int, fan_out: int) -> float:
        """gain/√fan."""
        numerator, denominator = squared_gain(self.nonlinearity, float(self.a))
        return math.sqrt(numerator / (denominator * (fan_in if self.mode == "fan_in" else fan_out)))


class KaimingUniform(_ScaledUniform, _Kaiming):
    """U(−√3·σ, √3·σ) with σ = gain/√fan, fan = fan_in or fan_out by `mode`; also called He's.

    a: number (default 0). The negative slope of the rectifier that follows: 0 for ReLU, the initial slope
        for PReLU. The gain is √(2/(1 + a²)).
    mode: "fan_in" (default) keeps the variance of activations, "fan_out" that of gradients.
    nonlinearity: name of an activation (default "leaky_relu"). Selects another gain of `calculate_gain`.

    PyTorch's default weights of Linear are KaimingUniform(a=√5), which is U(−1/√fan_in, 1/√fan_in).
    Deviation from PyTorch, which ignores `a` for nonlinearities other than leaky_relu: here it must be 0.
    Source: K. He et al., "Delving deep into rectifiers", ICCV 2015, equations 10, 14 and 15.
    """


class KaimingNormal(_ScaledNormal, _Kaiming):
    """N(0, σ²) with σ = gain/√fan, fan = fan_in or fan_out by `mode`; also called He's.

    Arguments as for KaimingUniform. Keras's HeNormal is truncated at 2σ; this is not.
    Source: as for KaimingUniform.
    """


@dataclass(frozen=True, eq=False, repr=False)
class _Glorot(_Scaled):
    gain: float = 1.0
    nonlinearity: str = "linear"

    def __post_init__(self) -> None:
        check_real("gain", self.gain, low=0.0, open_low=True)
        check_nonlinearity(self.nonlinearity)

    def std(self, fan_in: int, fan_out: int) -> float:
        """gain·√(2 / (fan_in + fan_out))."""
        gain = self.gain * calculate_gain(self.nonlinearity)
        return gain * math.sqrt(2.0 / (fan_in + fan_out))


class GlorotUniform(_ScaledUniform, _Glorot):
    """U(−√3·σ, √3·σ) with σ = gain·√(2 / (fan_in + fan_out)); also called Xavier's.

    gain: number > 0 (default 1, for activations that are the identity near 0, such as tanh).
    nonlinearity: name of an activation (default "linear"). Multiplies the gain by `calculate_gain`'s.

    Before sigmoids use gain=4: as σ(z) = (1 + tanh(z/2))/2, a net of sigmoids with four times the weights
    of a net of tanh computes the same (biases absorb the shift of 1/2).

    Source: X. Glorot, Y. Bengio, "Understanding the difficulty of training deep feedforward neural
    networks", AISTATS 2010, equation 16.
    """


class GlorotNormal(_ScaledNormal, _Glorot):
    """N(0, σ²) with σ = gain·√(2 / (fan_in + fan_out)); also called Xavier's.

    Arguments as for GlorotUniform. Keras's is truncated at 2σ; this is not.
    Source: as for GlorotUniform, equation 12.
    """


class _Lecun(_Scaled):
    def std(self, fan_in: int, fan_out: int) -> float:
        """1/√fan_in."""
        return math.sqrt(1.0 / fan_in)


@dataclass(frozen=True, eq=False, repr=False)
class LecunUniform(_ScaledUniform, _Lecun):
    """U(−√3·σ, √3·σ) with σ = 1/√fan_in: keeps the variance before the identity and before SELU.

    Source: Y. LeCun et al., "Efficient backprop", in Neural networks: tricks of the trade, 1998, section
    4.6, for standardised inputs and the activation 1.7159·tanh(2x/3).
    """


@dataclass(frozen=True, eq=False, repr=False)
class LecunNormal(_ScaledNormal, _Lecun):
    """N(0, 1/fan_in). Keras's is truncated at 2σ; this is not.

    Source: as for LecunUniform; for SELU, G. Klambauer et al., "Self-normalizing neural networks", NIPS
    2017.
    """


@dataclass(frozen=True, eq=False, repr=False)
class FanInUniform(Initializer):
    """U(−1/√fan_in, 1/√fan_in): PyTorch's distribution of the bias of Linear, and of its weights.

    Source: PyTorch's Linear.
    """

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The initial value, float64."""
        return draw.uniform(shape, 1.0 / math.sqrt(fan_in))


XavierUniform, XavierNormal = GlorotUniform, GlorotNormal
HeUniform, HeNormal = KaimingUniform, KaimingNormal
