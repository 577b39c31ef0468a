"""Blocks: layers that hold others, for residual connections, branches and gates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import numpy as np

from fastnet import random
from fastnet.builder import Builder
from fastnet.data.codes import Code
from fastnet.errors import HyperparameterError, ShapeError, UsageError, check_flag, shown
from fastnet.layers.base import Layer, Owned, Shape
from fastnet.layers.joining import add, concat, multiply
from fastnet.op import Op


class Holder(Owned):
    """An object that holds layers: a model or a block. A layer may stand in it several times."""

    @property
    def _is_used(self) -> bool:
        """Whether it is a model that has memory."""
        return False

    def _children(self) -> Iterator[tuple[str, Any]]:
        """The layers, blocks and models that it holds, by name, each as often as it stands there."""
        raise NotImplementedError

    def _all(self) -> Iterator[tuple[str, Any]]:
        """All layers, blocks and models in it, in order, each as often as it stands there."""
        open_ones = [("", self._children())]
        while open_ones:
            prefix, children = open_ones[-1]
            for name, child in children:
                yield prefix + name, child
                if isinstance(child, Holder):
                    open_ones.append((f"{prefix}{name}.", child._children()))
                    break
            else:
                open_ones.pop()

    def _walk(self) -> Iterator[tuple[str, Any]]:
        """All layers in it that hold no others, each once, with the name of its first place."""
        seen: set[int] = set()
        for path, child in self._all():
            if not isinstance(child, Holder) and id(child) not in seen:
                seen.add(id(child))
                yield path, child

    def _aliases(self) -> dict[str, str]:
        """The further names of layers that stand in it several times, with the first one."""
        first: dict[int, str] = {}
        leaves = [(path, la) for path, la in self._all() if not isinstance(la, Holder)]
        return {p: first[id(la)] for p, la in leaves if first.setdefault(id(la), p) != p}

    def _take_over(self, dtype: Any, seed: int) -> None:
        """Let the models in it adopt dtype and seed of the model that contains them."""
        for _, child in self._children():
            if isinstance(child, Holder):
                child._take_over(dtype, seed)

    def _own(self) -> None:
        """Take ownership of what it holds, and tell all layers in it their names and places."""
        for _, child in self._children():
            child._claim(self)
        for path, layer in self._all():
            if isinstance(layer, Layer):
                layer._path = path
        for index, (path, layer) in enumerate(self._walk()):
            layer._path, layer._index = path, index

    @contextmanager
    def _owning(self) -> Iterator[None]:
        """Own the layers; give them back as they were if an error follows."""
        owners = [(child, child._claims) for _, child in self._children()]
        layers = [layer for _, layer in self._all() if isinstance(layer, Layer)]
        places = [(layer, layer._path, layer._index, layer._seed) for layer in layers]
        try:
            yield
        except BaseException:
            for child, claims in owners:
                child._claims = claims
            for layer, path, index, seed in places:
                layer._path, layer._index, layer._seed = path, index, seed
            raise


def check_layers(what: str, layers: Mapping[str, Any]) -> None:
    """Raise HyperparameterError unless these are layers, and UsageError where a model uses one.

    A layer may stand in several parts of one model. A model that has not been used may still become one of
    these parts.
    """
    if not layers:
        raise HyperparameterError(f"{what}() has no layers; expected at least one")
    for name, layer in layers.items():
        if not isinstance(layer, (Layer, Holder)):
            remedy = "expected a layer, such as fastnet.Linear(64, 10)"
            if isinstance(layer, (list, tuple)):
                remedy = f"expected a layer: write {what}(*layers)"
            elif isinstance(layer, type) and issubclass(layer, Layer):
                remedy = f"expected a layer, such as {layer.__name__}(...)"
            raise HyperparameterError(f"layer {name} is {shown(layer)}; {remedy}")
        if any(root._is_used for root in layer._roots() if root is not layer):
            raise UsageError(
                f"layer {name} ({type(layer).__name__}) is part of a model already; give each model "
                "layers of its own (copy.deepcopy makes one)"
            )


def width_of(layers: Sequence[Any]) -> int | None:
    """The number of input features of layers applied one after the other, or None where none fixes it."""
    for place, layer in enumerate(layers):
        width = layer.in_width  # asked once: of a nested model it is a walk
        if width is not None:
            return width_through(layers[:place], width)
        if layer.any_rows:
            return None
    return None


def width_through(layers: Sequence[Any], width: int | None) -> int | None:
    """The number of input features of layers that give `width` features; None: it is not known."""
    for layer in reversed(layers):
        width = None if width is None else layer.width_before(width)
    return width


def codes_through(layers: Sequence[Any], places: list[int], found: list[Code]) -> list[int]:
    """`find_codes` of layers applied one after the other."""
    for layer in layers:
        places = layer.find_codes(places, found)
    return places


class _Alone:
    """What stands in for a model's segments while a block is in none."""

    version = host_version = 0
    editing = False


class Block(Layer, Holder, base=True):
    """Base of layers that hold layers.

    A subclass passes them by name to `super().__init__`, beside its arguments as `config`, and defines
    `emit`, in which `g.enter(layer, x)` applies one of them, and `output_shape`. Its parameters are theirs,
    with names such as "0.weight".
    """

    def __init__(self, layers: Mapping[str, Any], config: Mapping[str, Any]) -> None:
        super().__init__(**config)
        check_layers(type(self).__name__, layers)
        self._inner = dict(layers)
        self._parameters = {
            f"{path}.{name}": p
            for path, layer in self._walk()
            for name, p in layer._parameters.items()
        }
        with self._owning():
            self._own()
            if (width := self.in_width) is not None:
                self.output_shape((width,))

    def _prepare(self, dtype: Any) -> None:
        dtype = self._dtype() or dtype
        self._seed = random.fresh_seed() if self._seed is None else self._seed
        for index, layer in enumerate(self._leaves):
            for place, p in enumerate(layer._parameters.values()):
                if p.value is None:
                    p.value = p.draw(dtype, self._seed, index, place)
                elif p.value.dtype != (p.dtype or dtype):  # of a layer that was used before
                    p.value = p.value.astype(p.dtype or dtype)
                if not p.buffer and (p.grad is None or p.grad.dtype != p.value.dtype):
                    p.grad = np.zeros_like(p.value)

    def _initialize(self, dtype: Any, seed: int | None) -> None:
        for p in self._parameters.values():
            p.value = p.grad = None
        self._seed = seed
        self._prepare(dtype)

    def _children(self) -> Iterator[tuple[str, Any]]:
        yield from self._inner.items()

    @property
    def any_rows(self) -> bool:  # type: ignore[override]
        """Whether input rows may have any number of dimensions."""
        return any(layer.any_rows for layer in self._inner.values())

    @property
    def _leaves(self) -> list[Layer]:
        return [layer for _, layer in self._walk()]

    @property
    def training(self) -> bool:
        """Whether any layer in it is in training mode."""
        return any(layer.training for layer in self._leaves)

    @training.setter
    def training(self, mode: bool) -> None:
        self.train(mode)

    def train(self, mode: bool = True) -> Self:
        """Switch every layer in it to training mode (or, with False, to evaluation mode)."""
        mode = check_flag("mode", mode)
        for layer in self._leaves:
            layer.train(mode)
        return self

    @property
    def min_training_rows(self) -> int:  # type: ignore[override]
        """The fewest rows of a training minibatch."""
        return max((la.min_training_rows for la in self._leaves if la.training), default=1)

    def _modes(self) -> Mapping[int, bool]:
        return {id(la): la.training and not la._keeps_statistics for la in self._leaves}

    # Its layers ask it, as their owner, for what a model has.

    def bind(self) -> Any:
        """The segments of the model that it is in; outside a model, its parameters get values."""
        if (owner := self._owner) is not None:
            return owner.bind()
        self._ready()
        return _Alone()

    def touch(self) -> None:
        """Note that values have changed."""
        if (owner := self._owner) is not None:
            owner.touch()

    def _set_frozen(self, parameters: Any, frozen: bool) -> None:
        if (owner := self._owner) is not None:
            owner._set_frozen(parameters, frozen)
        else:
            for p in parameters:
                p.frozen = frozen

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._own()


def _numbered(layers: tuple[Any, ...]) -> dict[str, Any]:
    return {str(i): layer for i, layer in enumerate(layers)}


class Residual(Block):
    """y = f(x) + s(x): f is the layers one after the other, s the shortcut.

    layers: Layer or Sequential, at least one; a layer may stand there several times.
    shortcut: Layer or Sequential (default None: the identity, s(x) = x). Where f changes the width, it
        gives s(x) the same one, such as `shortcut=Linear(64, 128)`.

    The layers' parameters have names such as "0.weight" and "shortcut.weight". Raises ShapeError where the
    rows of f(x) and s(x) differ in shape.
    Source: K. He et al., "Deep residual learning for image recognition", CVPR 2016, equations 1 and 2.
    """

    def __init__(self, *layers: Any, shortcut: Any = None) -> None:
        held = _numbered(layers)
        check_layers(type(self).__name__, held)
        held |= {} if shortcut is None else {"shortcut": shortcut}
        super().__init__(held, {"layers": layers, "shortcut": shortcut})

    @property
    def in_width(self) -> int | None:
        """The number of input features that the layers or the shortcut take."""
        found = width_of(self.layers)
        return found if found is not None or self.shortcut is None else width_of([self.shortcut])

    def width_before(self, width: int) -> int | None:
        """The same number, or that which gives the layers so many."""
        return width if self.shortcut is None else width_through(self.layers, width)

    @property
    def any_rows(self) -> bool:  # type: ignore[override]
        """Whether the shortcut takes any; the sum is of rows of one dimension."""
        return self.shortcut is not None and bool(self.shortcut.any_rows)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of f(x) and of s(x)."""
        found = shape
        for layer in self.layers:
            found = layer.output_shape(found)
        other = shape if self.shortcut is None else self.shortcut.output_shape(shape)
        if found != other:
            told = "the input's" if self.shortcut is None else "the shortcut's"
            raise ShapeError(
                f"{self.label}: the layers give rows of shape {found}, expected {told} {other}: give a "
                "shortcut that has this shape, such as shortcut=Linear(in_features, out_features)"
            )
        return found

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """Those of the layers and of the shortcut; no column of a sum is one of the input."""
        codes_through(self.layers, places, found)
        if self.shortcut is not None:
            self.shortcut.find_codes(places, found)
        return super().find_codes(places, found)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply the layers, the shortcut, and `add`."""
        y = x
        for layer in self.layers:
            y = g.enter(layer, y)
        return g.apply(add, a=y, b=x if self.shortcut is None else g.enter(self.shortcut, x))


class _Branches(Block, base=True):
    """Base of blocks whose layers all take the same input."""

    def __init__(self, *branches: Any) -> None:
        super().__init__(_numbered(branches), {"branches": branches})

    @property
    def in_width(self) -> int | None:
        """The number of input features that the branches take."""
        found = (width_of([branch]) for branch in self.branches)
        return next((width for width in found if width is not None), None)

    def width_before(self, width: int) -> int | None:
        """The number of input features that gives the first branch so many outputs."""
        return width_through(self.branches[:1], width)

    def _shapes(self, shape: Shape) -> list[Shape]:
        found: list[Shape] = [branch.output_shape(shape) for branch in self.branches]
        return found

    def _join(self, g: Builder, x: Any, join: Callable[[Any, Any], Any]) -> Any:
        """The branches' outputs, joined in pairs until one is left."""
        found = [g.enter(branch, x) for branch in self.branches]
        while len(found) > 1:
            pairs = [join(a, b) for a, b in zip(found[::2], found[1::2], strict=False)]
            found = [*pairs, *found[2 * len(pairs) :]]
        return found[0]


class _OfEqualShapes(_Branches, base=True):
    """Base of blocks that join rows of equal shapes."""

    _op: type[Op]

    def output_shape(self, shape: Shape) -> Shape:
        """The branches' common shape."""
        found = self._shapes(shape)
        for i, other in enumerate(found):
            if other != found[0]:
                raise ShapeError(
                    f"{self.label}: branch {i} gives rows of shape {other}, expected {found[0]}, as "
                    "branch 0 does"
                )
        return found[0]

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """Those of the branches; no column of what they are joined to is one of the input."""
        for branch in self.branches:
            branch.find_codes(places, found)
        return super().find_codes(places, found)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply the branches, and join them."""
        return self._join(g, x, lambda a, b: g.apply(self._op, a=a, b=b))


class Add(_OfEqualShapes):
    """y = b₁(x) + b₂(x) + …: the sum of the branches' outputs.

    branches: Layer or Sequential, at least one; the same one may stand there several times.

    Sums are of pairs: (b₁ + b₂) + (b₃ + b₄). Raises ShapeError where the rows differ in shape.
    Source: elementary.
    """

    _op = add


class Multiply(_OfEqualShapes):
    """y = b₁(x)·b₂(x)·…: the product of the branches' outputs, elementwise, such as a gate's.

    branches: Layer or Sequential, at least one; the same one may stand there several times.

    `Multiply(Linear(8, 4), Sequential(Linear(8, 4), Sigmoid()))` is a layer with a gate for each output.
    Raises ShapeError where the rows differ in shape.
    Source: R. K. Srivastava, K. Greff, J. Schmidhuber, "Highway networks", 2015 (gates).
    """

    _op = multiply


class Concat(_Branches):
    """y = [b₁(x), b₂(x), …]: the columns of the branches' outputs side by side.

    branches: Layer or Sequential, at least one, each with rows of one dimension; the same one may stand
        there several times. `Identity()` stands for the input.

    (n, i) → (n, o₁ + o₂ + …). Raises ShapeError where a branch gives rows of more dimensions.
    Source: G. Huang et al., "Densely connected convolutional networks", CVPR 2017 (of features).
    """

    def width_before(self, width: int) -> int | None:
        """Not known."""
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """The sum of the branches' widths."""
        found = self._shapes(shape)
        for i, other in enumerate(found):
            if len(other) != 1:
                raise ShapeError(
                    f"{self.label}: branch {i} gives rows of shape {other}, expected one dimension: put "
                    "Flatten() behind it"
                )
        return (sum(other[0] for other in found),)

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """Those of the branches, side by side."""
        return [place for branch in self.branches for place in branch.find_codes(places, found)]

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply the branches, and `concat`."""
        return self._join(g, x, lambda a, b: g.apply(concat, a=a, b=b))


class Flatten(Layer):
    """y = x with each row as a vector: (n, 28, 28) → (n, 784), without a copy.

    Source: elementary; PyTorch's Flatten(start_dim=1).
    """

    any_rows = True

    def width_before(self, width: int) -> int | None:
        """Not known: the rows may have any shape of so many numbers."""
        return None

    def output_shape(self, shape: Shape) -> Shape:
        """(d₁, d₂, …) → (d₁·d₂·…,)."""
        return (math.prod(shape),)

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """The columns as they are."""
        return places

    def emit(self, g: Builder, x: Any) -> Any:
        """No op: the same numbers."""
        row = tuple(int(d) for d in x.shape[1:])
        return x if len(row) == 1 else g.reshape(x, self.output_shape(row))
