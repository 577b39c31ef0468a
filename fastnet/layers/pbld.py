"""PBLD: numbers as themselves, and beside them as learned sums of waves."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import ShapeError, check_int, check_real
from fastnet.init import Normal, Uniform
from fastnet.layers.base import Layer, Shape
from fastnet.layers.columns import take_columns
from fastnet.layers.joining import concat
from fastnet.layers.periodic import angles, cosine
from fastnet.layers.piecewise import grouped_linear
from fastnet.op import Array
from fastnet.parameter import Derived


class PBLD(Layer):
    """y = [V_i·cos(2π·w_i·x_i + b_i) + c_i for each feature i, x]: x, and beside it sums of waves.

    The name stands for periodic, bias, linear, DenseNet: w_i and b_i are the frequencies and phases of
    feature i, V_i (embedding_dim − 1, n_frequencies) and c_i a linear layer of its own, and x goes along as
    in a DenseNet.

    in_features: integer ≥ 1, the features that get an embedding, the first columns of x.
    n_frequencies: integer ≥ 1 (default 16), of each feature.
    embedding_dim: integer ≥ 2 (default 4). The columns made of a feature, with the feature itself.
    sigma: number > 0 (default 0.1). Initial frequencies are N(0, sigma²).
    others: integer ≥ 0 (default 0). Columns of x behind these, such as one-hot ones, that go along as they
        are.

    The parameters are `weight_1` (in_features, n_frequencies) and `bias_1` (in_features·n_frequencies), the
    frequencies and the phases, U(−π, π) at first; `weight_2` (in_features·n_frequencies,
    embedding_dim − 1) and `bias_2` (in_features·(embedding_dim − 1)), U(−1/√n_frequencies,
    1/√n_frequencies) at first.
    x (rows, in_features + others) → y (rows, in_features·embedding_dim + others): the embeddings, feature
    after feature, then all columns of x. Any other width raises ShapeError. Inputs should be scaled to
    about 1.
    Source: D. Holzmüller, L. Grinsztajn, I. Steinwart, "Better by default: strong pre-tuned MLPs and
    boosted trees on tabular data", NeurIPS 2024 (arXiv 2407.04491), section 3; order of columns and initial
    values are those of its authors' package pytabkit.
    """

    def __init__(
        self,
        in_features: int,
        n_frequencies: int = 16,
        embedding_dim: int = 4,
        sigma: float = 0.1,
        others: int = 0,
    ) -> None:
        super().__init__(
            in_features=check_int("in_features", in_features, low=1),
            n_frequencies=check_int("n_frequencies", n_frequencies, low=1),
            embedding_dim=check_int("embedding_dim", embedding_dim, low=2),
            sigma=check_real("sigma", sigma, low=0.0, open_low=True),
            others=check_int("others", others, low=0),
        )
        features, waves = int(self.in_features), int(self.n_frequencies)
        made, bound = int(self.embedding_dim) - 1, 1.0 / math.sqrt(waves)
        self._declare("weight_1", (features, waves), init=Normal(0.0, self.sigma))
        self._declare("bias_1", (features * waves,), init=Uniform(-math.pi, math.pi))
        self._declare("weight_2", (features * waves, made), init=Uniform(-bound, bound))
        self._declare("bias_2", (features * made,), init=Uniform(-bound, bound))

    @property
    def in_width(self) -> int:
        """in_features + others."""
        return int(self.in_features) + int(self.others)

    @property
    def out_width(self) -> int:
        """The number of columns of the output."""
        return int(self.in_features) * int(self.embedding_dim) + int(self.others)

    def output_shape(self, shape: Shape) -> Shape:
        """(in_features + others,) → (in_features·embedding_dim + others,)."""
        if shape != (self.in_width,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected in_features + others = "
                f"{self.in_width}"
            )
        return (self.out_width,)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `take_columns`, `angles`, `cosine`, `grouped_linear` and `concat`."""
        w, b, v, c = self._parameters.values()
        own = g.apply(take_columns, x=x, places=self._own()) if self.others else x
        waves = g.apply(cosine, x=g.apply(angles, x=own, w=w, p=b, M=int(b.shape[0])))
        ends = Derived((int(self.in_features),), self._ends, constant=True)
        return g.apply(concat, a=g.apply(grouped_linear, x=waves, w=v, b=c, ends=ends), b=x)

    def _own(self) -> Derived:
        """The columns of the features."""
        count = int(self.in_features)
        return Derived((count,), lambda: np.arange(count), "int64", constant=True)

    def _ends(self) -> Array:
        """Where the waves of each feature end."""
        return int(self.n_frequencies) * np.arange(1.0, int(self.in_features) + 1)
