"""Layers of an ensemble whose members share a net (BatchEnsemble, TabM)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fastnet.builder import Builder
from fastnet.errors import (
    HyperparameterError,
    ShapeError,
    check_choice,
    check_flag,
    check_int,
    shown,
)
from fastnet.init import FanInUniform, Initializer, KaimingUniform, Ones, check_init
from fastnet.init.base import Draw
from fastnet.layers.base import Layer, Shape
from fastnet.layers.linear import linear
from fastnet.layers.members import linear_ensemble, log_mean_exp, spread, sum_members
from fastnet.layers.scale import affine, scale
from fastnet.layers.softmax import log_softmax
from fastnet.op import Array

AVERAGES = ("outputs", "probabilities")


class EnsembleView(Layer):
    """y = [x, x, …]: each row once for each of k members, side by side.

    k: integer ≥ 1, the number of members.

    It stands before the first layer of an ensemble. Row b of its output is the k rows of the members
    (b, 0), (b, 1), …, as PyTorch's (n, k, features) has them.
    x (rows, features) → y (rows, k·features). Raises ShapeError for rows of more dimensions.
    Source: Y. Wen, D. Tran, J. Ba, "BatchEnsemble: an alternative approach to efficient ensemble and
    lifelong learning", ICLR 2020, section 3.1; the name is that of the package tabm.
    """

    def __init__(self, k: int) -> None:
        super().__init__(k=check_int("k", k, low=1))

    def width_before(self, width: int) -> int | None:
        """A k-th of the width."""
        return width // int(self.k)

    def output_shape(self, shape: Shape) -> Shape:
        """(features,) → (k·features,)."""
        if len(shape) != 1:
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected one dimension: put "
                "Flatten() before it"
            )
        return (int(self.k) * shape[0],)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `spread`."""
        y = g.apply(spread, x=x, N=int(self.k), factor=1.0)
        return g.reshape(y, self.output_shape(tuple(x.shape[1:])))


class _OfMembers(Layer, base=True):
    """Base of linear layers whose rows are those of k members side by side."""

    @property
    def in_width(self) -> int:
        """k·in_features."""
        return int(self.k * self.in_features)

    def output_shape(self, shape: Shape) -> Shape:
        """(k·in_features,) → (k·out_features,)."""
        if shape != (self.in_width,):
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected k·in_features = {self.k}·"
                f"{self.in_features} = {self.in_width}: put EnsembleView({self.k}) before the "
                "first layer of an ensemble"
            )
        return (int(self.k * self.out_features),)


class LinearBatchEnsemble(_OfMembers):
    """y_n = ((x_n·r_n)Wᵀ)·s_n + b_n for each of k members, which share W (out_features, in_features).

    in_features, out_features: integers ≥ 1, of each member.
    k: integer ≥ 1, the number of members.
    bias: bool (default True). False: no b.
    r_init, s_init: initialisers of r and s (default None: all 1). In TabM the first r of a net alone is
        random, by init.RandomSigns() or init.Normal(): members begin as nets that see the features with
        other signs or scales.
    groups: a list of integers ≥ 1 with the sum in_features (default None: each feature for itself). The
        features of a group, such as those of an embedding or of a one-hot code, begin with one common r.

    The parameters are `weight` (out_features, in_features) and `r` (k, in_features), `s` and `bias`
    (k, out_features). All members begin with the same bias; weight and bias begin as Linear's.
    x (rows, k·in_features) → y (rows, k·out_features), member after member; any other width raises
    ShapeError. The product is one for the k·rows rows of all members.
    Source: Y. Wen, D. Tran, J. Ba, "BatchEnsemble: an alternative approach to efficient ensemble and
    lifelong learning", ICLR 2020, equation 5; initial values, names and shapes are those of Y. Gorishniy,
    A. Kotelnikov, A. Babenko, "TabM: advancing tabular deep learning with parameter-efficient ensembling",
    ICLR 2025.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        k: int,
        bias: bool = True,
        r_init: Initializer | None = None,
        s_init: Initializer | None = None,
        groups: Any = None,
    ) -> None:
        super().__init__(
            in_features=check_int("in_features", in_features, low=1),
            out_features=check_int("out_features", out_features, low=1),
            k=check_int("k", k, low=1),
            bias=check_flag("bias", bias),
            r_init=check_init("r_init", r_init, vector=True),
            s_init=check_init("s_init", s_init, vector=True),
            groups=_checked_groups(groups, in_features),
        )
        count, fans = int(self.k), {"fan_in": self.in_features, "fan_out": self.out_features}
        shape = self.in_features, self.out_features
        init = KaimingUniform(a=math.sqrt(5.0))
        self._declare("weight", shape, init=init, transposed=True, **fans)
        for name, width, made in (
            ("r", self.in_features, _Grouped(r_init or Ones(), count, self.groups)),
            ("s", self.out_features, s_init or Ones()),
            ("bias", self.out_features, _Repeated(FanInUniform(), count)),
        ):
            if name != "bias" or bias:
                shown = (count, width)
                self._declare(name, (count * width,), init=made, seen_as=shown, **fans)
        if not bias:
            self.__dict__["bias"] = None  # as in PyTorch; the configuration has False

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `scale`, `linear` to the rows of all members, and `affine`; `scale` without bias."""
        p, count = self._parameters, int(self.k)
        x = g.apply(scale, x=x, w=p["r"])
        rows = g.reshape(x, (int(self.in_features),), count)
        y = g.apply(linear, x=rows, w=p["weight"], b=None)
        y = g.reshape(y, (count * int(self.out_features),))
        if "bias" in p:
            return g.apply(affine, x=y, w=p["s"], b=p["bias"])
        return g.apply(scale, x=y, w=p["s"])


class LinearEnsemble(_OfMembers):
    """y_n = x_n·W_n + b_n: a linear layer of its own for each of k members, such as their last one.

    in_features, out_features: integers ≥ 1, of each member.
    k: integer ≥ 1, the number of members.
    bias: bool (default True). False: no b.
    weight_init: initialiser of a member's weights, in_features·out_features numbers (default Linear's
        distribution, U(−1/√in_features, 1/√in_features)). bias begins likewise.

    The parameters are `weight` (k, in_features, out_features) and `bias` (k, out_features).
    x (rows, k·in_features) → y (rows, k·out_features), member after member; any other width raises
    ShapeError.
    Source: Y. Gorishniy, A. Kotelnikov, A. Babenko, "TabM: advancing tabular deep learning with
    parameter-efficient ensembling", ICLR 2025, whose names and shapes it has.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        k: int,
        bias: bool = True,
        weight_init: Initializer | None = None,
    ) -> None:
        super().__init__(
            in_features=check_int("in_features", in_features, low=1),
            out_features=check_int("out_features", out_features, low=1),
            k=check_int("k", k, low=1),
            bias=check_flag("bias", bias),
            weight_init=check_init("weight_init", weight_init, vector=True),
        )
        fans = {"fan_in": self.in_features, "fan_out": self.out_features}
        shape = int(self.k), int(self.in_features), int(self.out_features)
        self._declare("weight", shape, init=weight_init or FanInUniform(), **fans)
        if bias:
            self._declare("bias", (shape[0], shape[2]), init=FanInUniform(), **fans)
        else:
            self.__dict__["bias"] = None  # as in PyTorch; the configuration has False

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `linear_ensemble` to the rows of all members."""
        rows = g.reshape(x, (int(self.in_features),), int(self.k))
        w, b = self._parameters["weight"], self._parameters.get("bias")
        y = g.apply(linear_ensemble, x=rows, w=w, b=b)
        return g.reshape(y, self.output_shape(tuple(x.shape[1:])))


class EnsembleMean(Layer):
    """y = (1/k)·Σ_n x_n over k members, or the logarithm of the mean of their probabilities.

    k: integer ≥ 1, the number of members.
    average: "outputs" (default), the mean of the outputs as they are, which are values of a regression; or
        "probabilities", y = ln((1/k)·Σ_n softmax(x_n)) for members with at least two classes. The softmax
        of y is the mean of the members' probabilities, so that y are logits for `predict_proba` and
        CrossEntropyLoss.

    It is the last layer of an ensemble. With EnsembleLoss, training minimises the mean of the members'
    losses, not the loss of y.
    x (rows, k·outputs), member after member → y (rows, outputs). Raises ShapeError where the width is no
    multiple of k.
    Source: L. K. Hansen, P. Salamon, "Neural network ensembles", IEEE PAMI 12(10), 1990.
    """

    def __init__(self, k: int, average: str = "outputs") -> None:
        super().__init__(
            k=check_int("k", k, low=1), average=check_choice("average", average, AVERAGES)
        )

    def width_before(self, width: int) -> int | None:
        """k times the width."""
        return width * int(self.k)

    def output_shape(self, shape: Shape) -> Shape:
        """(k·outputs,) → (outputs,)."""
        if len(shape) != 1 or shape[0] % self.k:
            raise ShapeError(
                f"{self.label}: rows of shape {shape} came, expected one dimension, a multiple of k = "
                f"{self.k}"
            )
        if self.average == "probabilities" and shape[0] < 2 * self.k:
            raise ShapeError(
                f"{self.label}: one output for each of {self.k} members came, expected at least two "
                'classes, as the softmax of one output is 1: take two outputs, or average="outputs"'
            )
        return (shape[0] // int(self.k),)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply `sum_members`, or `log_softmax` to the rows of all members and `log_mean_exp`."""
        count = int(self.k)
        row = self.output_shape(tuple(x.shape[1:]))
        if self.average == "outputs":
            return g.apply(sum_members, x=g.reshape(x, (count, *row)), factor=1.0 / count)
        logs = g.apply(log_softmax, x=g.reshape(x, row, count))
        return g.apply(log_mean_exp, x=g.reshape(logs, (count, *row)))


def members_of(g: Builder, output: Any) -> tuple[Any, int] | None:
    """What an EnsembleMean in training mode has made this of, and the number of members; None: none has."""
    node = g.source(output)
    if node is None or not node.training:
        return None
    if node.op is log_mean_exp and (logs := g.source(node.arguments["x"])) is not None:
        return logs.arguments["x"], node.sizes["N"]
    if node.op is sum_members:
        return node.arguments["x"], node.sizes["N"]
    return None


def _checked_groups(groups: Any, features: int) -> list[int] | None:
    if groups is None:
        return None
    if not isinstance(groups, (list, tuple, np.ndarray)) or getattr(groups, "ndim", 1) != 1:
        raise HyperparameterError(f"groups is {shown(groups)}; expected a list of integers")
    found = [check_int(f"groups[{i}]", width, low=1) for i, width in enumerate(groups)]
    if sum(found) != features:
        raise HyperparameterError(
            f"groups has the sum {sum(found)}; expected in_features = {features}: one width for each group "
            "of features"
        )
    return found


class _Grouped(Initializer):
    """Draws a vector of `count` rows, in each of which the elements of a group are equal."""

    def __init__(self, init: Initializer, count: int, groups: Sequence[int] | None) -> None:
        self.init, self.count, self.groups = init, count, groups

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """One number for each row and group, repeated."""
        if self.groups is None:
            return self.init.sample(shape, fan_in, fan_out, draw)
        drawn = self.init.sample((self.count * len(self.groups),), fan_in, fan_out, draw)
        rows = drawn.reshape(self.count, len(self.groups))
        return np.repeat(rows, self.groups, axis=1).reshape(shape)


class _Repeated(Initializer):
    """Draws a vector of `count` equal rows."""

    def __init__(self, init: Initializer, count: int) -> None:
        self.init, self.count = init, count

    def sample(self, shape: Shape, fan_in: int, fan_out: int, draw: Draw) -> Array:
        """The row once for each."""
        row = self.init.sample((shape[0] // self.count,), fan_in, fan_out, draw)
        return np.tile(row, self.count)
