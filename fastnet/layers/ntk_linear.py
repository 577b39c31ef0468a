"""The linear layer with standard normal weights and a factor 1/√in_features."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from fastnet.builder import Builder
from fastnet.formulas.language import Real, each
from fastnet.init import Initializer, Normal
from fastnet.layers.linear import Linear
from fastnet.layers.pointwise import Elementwise


class times(Elementwise):
    """y = factor·x; dx = factor·dy."""

    scalars = ("factor",)

    @each
    def forward(x: Real, factor: float) -> Real:
        """Multiply each element."""
        return factor * x

    @each
    def vjp(dy: Real, factor: float) -> Real:
        """The map is linear."""
        return factor * dy


class NTKLinear(Linear):
    """y = x·Wᵀ/√in_features + b with W (out_features, in_features): the NTK parametrisation.

    Weights of standard deviation 1 give the outputs that `Linear` has with 1/√in_features, but all
    gradients and steps of the weights have another scale, which does not depend on the width: a learning
    rate for one width suits others. The layer divides x before the product, as x has fewer elements than W.

    in_features, out_features: integers ≥ 1.
    bias: bool (default True). False: no b (out_features).
    weight_init, bias_init: initialisers from fastnet.init (default N(0, 1) for both).

    x (rows, in_features) → y (rows, out_features); any other width raises ShapeError. Values, names and
    shapes are Linear's, without the factor.
    Source: A. Jacot, F. Gabriel, C. Hongler, "Neural tangent kernel: convergence and generalization in
    neural networks", NeurIPS 2018, section 2; in the form and with the initial values of D. Holzmüller, L.
    Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and boosted trees on tabular data",
    NeurIPS 2024 (arXiv 2407.04491).
    """

    _weight_init: ClassVar[Initializer] = Normal()
    _bias_init: ClassVar[Initializer] = Normal()

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `times` and `linear`."""
        return super().emit(g, g.apply(times, x=x, factor=1.0 / math.sqrt(self.in_features)))
