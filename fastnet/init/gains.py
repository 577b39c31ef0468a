"""Gains: the factors by which weights compensate for the activation after them."""

from __future__ import annotations

import math

from fastnet.errors import HyperparameterError, check_choice, check_real, shown

# The squared gains as fractions (numerator, denominator).
_SQUARED_GAINS = {
    "linear": (1.0, 1.0),
    "sigmoid": (1.0, 1.0),
    "tanh": (25.0, 9.0),
    "relu": (2.0, 1.0),
    "leaky_relu": (2.0, 1.0),  # divided by 1 + slope²
    "selu": (9.0, 16.0),
}


def squared_gain(nonlinearity: str, slope: float) -> tuple[float, float]:
    """The square of `calculate_gain` as a fraction; `slope` is leaky_relu's."""
    numerator, denominator = _SQUARED_GAINS[nonlinearity]
    return numerator, denominator + slope * slope


def check_nonlinearity(value: str) -> None:
    """Raise HyperparameterError where the table of gains lacks the name."""
    check_choice("nonlinearity", value, tuple(_SQUARED_GAINS))


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor for weights before an activation, from PyTorch's table.

    linear, sigmoid: 1; tanh: 5/3; relu: √2; leaky_relu: √(2/(1 + param²)), where param is the negative
    slope (default 0.01); selu: 3/4. The gains of relu and leaky_relu follow from the variances (He et al.
    2015), the others are empirical. PyTorch's table has 1 for sigmoid, which needs 4: see GlorotUniform.
    """
    check_nonlinearity(nonlinearity)
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else check_real("param", param)
    elif param is None:
        slope = 0.0
    else:
        raise HyperparameterError(f"param is {shown(param)}; {nonlinearity} takes none")
    numerator, denominator = squared_gain(nonlinearity, slope)
    return math.sqrt(numerator / denominator)
