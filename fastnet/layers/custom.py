"""Layers of your own, whose forward and backward are NumPy code."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, wraps
from typing import Any, ClassVar

import numpy as np

from fastnet import random
from fastnet.builder import Builder
from fastnet.data import arrays
from fastnet.errors import DataError, HyperparameterError, ShapeError, check_int, shown, undefined
from fastnet.init import Initializer, Zeros
from fastnet.layers.base import Layer, Shape
from fastnet.op import Array, Op, put


class Saved:
    """What a forward keeps for its backward: assign any attributes.

    training: whether the layer is in training mode in this call. rng: a NumPy generator of random numbers,
    the same for the same seed, step and layer.
    """

    def __init__(self, training: bool, counter: tuple[int, int, int]) -> None:
        self.training, self._counter = training, counter

    @property
    def rng(self) -> np.random.Generator:
        """A generator that starts anew in each call."""
        if "_rng" not in vars(self):
            seed, step, stream = self._counter
            key = np.array([seed, stream], np.uint64)
            counter = np.array([0, 0, step, 0], np.uint64)
            self._rng = np.random.Generator(np.random.Philox(key=key, counter=counter))
        return self._rng


class CustomLayer(Layer, base=True):
    """y = forward(x), dx = backward(dy): base of layers of your own in NumPy, for models on every backend.

        class Gain(fn.CustomLayer):
            def __init__(self, features):
                super().__init__(features=features)
                self.parameter("scale", (features,), fn.init.Ones())

            def forward(self, x, saved):
                saved.x = x
                return x * self.scale

            def backward(self, dy, saved):
                return dy * self.scale, {"scale": (dy * saved.x).sum(axis=0)}

    A subclass defines two methods, and `output_shape(self, shape)` where rows of the output have another
    shape than those of x:

    - `forward(self, x, saved)` returns y for x (n, …), an array of its own in the model's dtype. What
      backward needs, it keeps as attributes of `saved`, not of the layer: other threads may predict
      meanwhile. `saved.training` is the mode of this call; `saved.rng` is a generator of random numbers
      which follow from the seeds.
    - `backward(self, dy, saved)` returns dL/dx for dL/dy (n, …); with parameters the pair (dL/dx, {name:
      dL/dparameter}), sums over the minibatch. It gets what `forward` has saved.

    Arguments of the constructor are kept by `super().__init__(name=value)`, as other layers do, so that the
    repr, `config` and files know them. A parameter is read as `self.name`.

    Each call returns from the native code to Python and goes on there afterwards, which takes some tens of
    microseconds, and the time of the NumPy code; fn.elementwise spares both for y = f(x) of each element.
    An error in a method ends the fit with its own traceback: the steps before it are counted, and the
    step changes nothing. What the methods return is checked: ShapeError and DataError name the layer.
    Source: that of the class.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        for name, first in (("forward", "x"), ("backward", "dy")):
            if name in vars(cls):
                setattr(cls, name, _either_way(vars(cls)[name], name, first, cls.__name__))
        super().__init_subclass__(**options)

    def forward(self, x: Any, saved: Saved | None = None) -> Array:
        """The output for x (n, …); without `saved` as Layer.forward, which calls your own."""
        if saved is None:
            return super().forward(x)
        raise undefined(self, "forward(self, x, saved)", "it returns the output for x")

    def backward(self, dy: Any, saved: Saved | None = None) -> Any:
        """dL/dx for dL/dy; without `saved` as Layer.backward, which calls your own."""
        if saved is None:
            return super().backward(dy)
        raise undefined(self, "backward(self, dy, saved)", "it returns dL/dx for dL/dy")

    def parameter(self, name: str, shape: Any, init: Initializer | None = None) -> None:
        """Declare a parameter, in the constructor after `super().__init__`; it is then `self.name`.

        name: its name in `state_dict`. shape: integers ≥ 1. init: an initialiser (default Zeros()), whose
        fan_in is the first number and fan_out the last.
        """
        if not (isinstance(name, str) and name.isidentifier()) or name.startswith("_"):
            raise HyperparameterError(f"name is {shown(name)}; expected a name, such as 'scale'")
        if hasattr(type(self), name) or name in (*self._config, *self._parameters):
            raise HyperparameterError(
                f"name is {name!r}, which {type(self).__name__} has already; expected another"
            )
        if not isinstance(shape, (tuple, list)):
            raise HyperparameterError(f"shape is {shown(shape)}; expected integers, such as (3, 4)")
        sizes = tuple(check_int("shape", size, low=1) for size in shape) or (1,)
        if init is not None and not isinstance(init, Initializer):
            raise HyperparameterError(
                f"init is {shown(init)}; expected an initialiser, such as fastnet.init.Ones()"
            )
        start = Zeros() if init is None else init
        self._declare(name, sizes, init=start, fan_in=sizes[0], fan_out=sizes[-1])

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply an op whose kernels call the two methods."""
        row = tuple(int(d) for d in x.shape[1:])
        held = list(self._parameters.values())
        op = _op_of(row, self._checked_shape(row), tuple(p.shape for p in held))
        call = Call(self, tuple(self._parameters), g.training)
        stream = random.stream_of(random.NOISE, self._index)
        given = {f"p{i}": p for i, p in enumerate(held)}
        return g.apply(op, stream=stream, x=x, call=call, **given)

    def _checked_shape(self, row: Shape) -> Shape:
        found = self.output_shape(row)
        if not isinstance(found, tuple) or not all(isinstance(d, int) for d in found):
            raise ShapeError(
                f"{self.label}: output_shape returned {shown(found)}; expected a tuple of integers"
            )
        return found


def _either_way(own: Any, name: str, first: str, kind: str) -> Any:
    """A method of a user as it is called within a program; without `saved` that of Layer."""
    try:
        inspect.signature(own).bind(None, None, None)
    except TypeError:
        raise HyperparameterError(
            f"{kind}.{name} takes {inspect.signature(own)}; expected (self, {first}, saved)"
        ) from None

    @wraps(own)
    def method(self: CustomLayer, given: Any, saved: Saved | None = None) -> Any:
        if saved is None:
            return getattr(CustomLayer, name)(self, given)
        return own(self, given, saved)

    return method


class Call:
    """One use of a layer in a program: it calls the layer, and has what its forward has saved."""

    def __init__(self, layer: CustomLayer, names: tuple[str, ...], training: bool) -> None:
        self.layer, self.names, self.training = layer, names, training
        self.saved: Saved | None = None

    def __copy__(self) -> Call:
        return Call(self.layer, self.names, self.training)

    def forward(self, y: Array, x: Array, counter: tuple[int, int, int]) -> None:
        """Compute y."""
        saved = self.saved = Saved(self.training, counter)
        found = self.layer.forward(np.array(x), saved)
        np.copyto(y, self._checked("forward", found, y.shape), casting="unsafe")

    def backward(self, dx: Array, into: Mapping[str, Array], dy: Array, accumulate: int) -> None:
        """Compute dx, and the gradients of parameters."""
        found, layer = self.layer.backward(np.array(dy), self.saved), self.layer
        gradients: Any = {}
        if isinstance(found, tuple):
            if len(found) != 2 or not isinstance(found[1], Mapping):
                raise DataError(
                    f"{layer.label}: backward returned {_kind(found)}; expected dL/dx, or the pair (dL/dx, "
                    "{name: gradient})"
                )
            found, gradients = found
        if dx.size or found is not None:
            shape = dx.shape if dx.size else None
            value = self._checked("backward", found, shape)
            if dx.size:
                np.copyto(dx, value, casting="unsafe")
        for name in gradients:
            if name not in into:
                raise DataError(
                    f"{layer.label}: backward returned a gradient of {shown(name)}; the layer has the "
                    f"parameters {', '.join(into) or 'none'}"
                )
        for name, target in into.items():
            if not target.size:  # frozen
                continue
            if name not in gradients:
                raise DataError(
                    f"{layer.label}: backward returned no gradient of {name!r}; expected the pair (dL/dx, "
                    f"{{{name!r}: dL/d{name}}})"
                )
            value = self._checked(f"backward's gradient of {name!r}", gradients[name], target.shape)
            put(target, value.astype(target.dtype, copy=False), accumulate)

    def _checked(self, what: str, found: Any, shape: tuple[int, ...] | None) -> Array:
        if (
            type(found) is np.ndarray
            and found.dtype.kind in "fiub"
            and shape in (None, found.shape)
        ):
            return found
        label, told = self.layer.label, f"{what} returned {_kind(found)}"
        if "'" in what:
            told = f"{what} is {_kind(found)}"
        try:
            array = arrays.numbers(told, found)
        except DataError:
            raise DataError(f"{label}: {told}; expected an array of numbers") from None
        if shape is not None and array.shape != shape:
            wider = what == "forward" and array.shape[:1] == shape[:1]
            remedy = (
                ": a layer that changes the width defines output_shape(self, shape)"
                if wider
                else ""
            )
            raise ShapeError(f"{label}: {told}; expected the shape {shape}{remedy}")
        return array


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return "None" if value is None else f"an object of {type(value).__name__}"


class _Kernel:
    """A function with argument names that no Python signature spells."""

    def __init__(self, arguments: tuple[str, ...], function: Callable[..., None]) -> None:
        self.arguments, self.function = arguments, function

    def __call__(self, *given: Any) -> None:
        self.function(**dict(zip(self.arguments, given, strict=True)))


def _forward(*, y: Array, x: Array, call: Call, seed: int, step: int, stream: int) -> None:
    call.forward(y, x, (seed, step, stream))


def _backward(*, dx: Array, dy: Array, call: Call, accumulate: int, **gradients: Array) -> None:
    call.backward(dx, dict(zip(call.names, gradients.values(), strict=True)), dy, accumulate)


@cache
def _op_of(row: Shape, out: Shape, held: tuple[Shape, ...]) -> type[Op]:
    """The op of layers from rows of a shape to rows of another, with parameters of these shapes."""

    def words(shape: Shape, *first: str) -> str:
        return " ".join([*first, *map(str, shape)])

    parameters = {f"p{i}": words(shape) for i, shape in enumerate(held)}
    gradients = tuple(f"d{name}" for name in parameters)
    names = "_".join("x".join(map(str, shape)) for shape in (row, out, *held))
    return type(
        f"custom_{names}",
        (_Custom,),
        {
            "outputs": {"y": words(out, "B")},
            "inputs": {"x": words(row, "B"), **parameters},
            "forward": _Kernel(("y", "x", "call", "seed", "step", "stream"), _forward),
            "vjp": _Kernel(("dx", *gradients, "dy", "call", "accumulate"), _backward),
        },
    )


class _Custom(Op):
    """Base of ops whose kernels call a layer's methods."""

    guest = on_host = True
    objects: ClassVar = ("call",)
