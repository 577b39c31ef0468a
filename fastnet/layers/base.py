"""Layer: a small declarative object with hyper-parameters, a shape rule and named parameters."""

from __future__ import annotations

import copy
import math
import weakref
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from fastnet import parameter, random
from fastnet.builder import Builder
from fastnet.configured import Fixed
from fastnet.data import arrays
from fastnet.data.codes import Code
from fastnet.errors import (
    ShapeError,
    UsageError,
    check_flag,
    check_seed,
    undefined,
)
from fastnet.op import Array
from fastnet.parameter import Parameter
from fastnet.tape import Tape, Value

Shape = tuple[int, ...]


class Owned:
    """An object that models and blocks may own. They hold it strongly; it holds them weakly."""

    _claims: tuple[weakref.ref[Any], ...] = ()  # those that own it; one, or parts of one model

    @property
    def _owner(self) -> Any:
        """A model or block that owns this object, or None."""
        for claim in self._claims:
            if (owner := claim()) is not None:
                return owner
        return None

    def _claim(self, owner: Any) -> None:
        """Let this model or block own it, beside those that do."""
        others = (c for c in self._claims if c() is not None and c() is not owner)
        self._claims = (*others, weakref.ref(owner))

    def _roots(self) -> list[Any]:
        """The models, or blocks outside models, that it is part of; itself if nobody owns it."""
        owners = [owner for claim in self._claims if (owner := claim()) is not None]
        return [root for owner in owners for root in owner._roots()] if owners else [self]


class Layer(Owned, Fixed, base=True):
    """Base of all layers.

    A subclass passes its checked hyper-parameters to `super().__init__` under the names of its own
    constructor's arguments, declares its parameters with `_declare`, and defines `output_shape` and
    `emit`. Hyper-parameters are attributes and never change, because plans are compiled from them.

    A layer outside a model runs the NumPy reference: `forward(x)` takes x (n, …) in float32 or float64 and
    returns a new array; `backward(dy)` returns dL/dx and adds the parameters' gradients to `grads`. Values
    are not checked: NaN and infinity pass through. The first use creates the parameters in x's dtype
    (float32 if x has another), from the seed given to `reset_parameters` or a random one.
    """

    training: bool = True
    _may_be_shared: ClassVar[bool] = True
    any_rows: bool = False  # whether input rows may have any number of dimensions
    min_training_rows = 1  # fewest rows of a training minibatch
    reads_codes: ClassVar[bool] = False  # whether it reads integer codes, see find_codes

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self._parameters: dict[str, Parameter] = {}
        self._path = ""  # its name in the model, such as "2" or "1.0"
        self._index = 0  # its place in the flattened model, which selects its random stream
        self._step = 0  # forwards outside a model; dropout's step
        self._seed: int | None = None
        self._pending: tuple[Tape, Value, Value] | None = None

    # What a subclass defines.

    @property
    def in_width(self) -> int | None:
        """The number of input features, or None where the layer accepts any."""
        return None

    @property
    def joins_rows(self) -> bool:
        """Whether an output depends on other rows in evaluation, too."""
        return False

    def width_before(self, width: int) -> int | None:
        """The number of input features that gives `width` outputs, where `in_width` is None.

        None: it is not known.
        """
        return width

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one output row for a shape of one input row.

        Raises ShapeError, with the layer's name, where the layer does not accept the input.
        """
        return shape

    def emit(self, g: Builder, x: Any) -> Any:
        """Describe the layer by ops: apply them to x on the builder and return the output."""
        raise undefined(
            self, "emit(self, g, x)", "it applies ops to x by g.apply and returns the output"
        )

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """Add to `found` which columns of a model's input this layer reads as integer codes.

        places: the column of the model's input that each column of the layer's input is, or −1 where it is
        none of them. Returns that for the columns of its output; by default −1 for each.

        Such columns are checked with the data, before anything is computed. A layer that reads codes sets
        `reads_codes`.
        """
        return [-1] * math.prod(self.output_shape((len(places),)))

    def _check_ready(self) -> None:
        """Raise UsageError where the layer lacks numbers without which no model can use it."""

    def _declare(self, name: str, shape: Shape, **options: Any) -> None:
        self._parameters[name] = Parameter(name, shape, **options)

    @property
    def label(self) -> str:
        """The layer's name in error messages: "Linear", or "layer 2 (Linear)" in a model."""
        kind = type(self).__name__
        return f"layer {self._path} ({kind})" if self._path else kind

    # A layer outside a model.

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw new parameters (float32 unless they have another dtype) and set gradients to zero."""
        self._alone("reset_parameters")
        self._initialize(self._dtype() or np.dtype("float32"), check_seed("seed", seed))

    def forward(self, x: Any) -> Array:
        """The layer's output for x, a new array; keeps what `backward` needs."""
        x = arrays.floats(f"{self.label}: x", x, arrays.ANY_ROWS if self.any_rows else None)
        self.output_shape(x.shape[1:])
        if (self.training or self.joins_rows) and x.shape[0] < self.min_training_rows:
            kind = "rows for statistics" if self.joins_rows else "a training minibatch"
            remedy = "" if self.joins_rows else " (or call eval() first)"
            raise ShapeError(
                f"{self.label}: {kind} of {x.shape[0]} rows; "
                f"expected at least {self.min_training_rows}{remedy}"
            )
        if (owner := self._owner) is not None:
            owner.bind()
        else:
            self._prepare(x.dtype)
        dtype = self._dtype() or x.dtype
        if self._seed is None:
            self._seed = random.fresh_seed()
        tape = Tape(dtype, self.training, self._seed, self._step, self._modes())
        with np.errstate(all="ignore"):  # as in compiled plans: IEEE results without warnings
            given = Value(np.array(x, dtype))
            output = self.emit(tape, given)
        self._step += self.training
        self._pending = (tape, given, output)
        if (owner := self._owner) is not None:
            owner.touch()
        return np.array(output.array)

    def backward(self, dy: Any) -> Array:
        """dL/dx for dL/dy of the last forward; adds the parameters' gradients to `grads`."""
        if self._pending is None:
            raise UsageError(f"{self.label}: backward needs a forward before it, one for each call")
        tape, given, output = self._pending
        dy = arrays.floats(f"{self.label}: dy", dy)
        if dy.shape != output.array.shape:
            raise ShapeError(
                f"{self.label}: dy has shape {dy.shape}, expected the output's {output.array.shape}"
            )
        self._pending = None
        with np.errstate(all="ignore"):
            tape.backward(output, np.array(dy, tape.dtype))
        self._wrote_gradients()
        assert given.grad is not None
        return given.grad

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        for p in self._parameters.values():
            if p.grad is not None:
                p.grad.fill(0)
        self._wrote_gradients()

    def _wrote_gradients(self) -> None:
        if (owner := self._owner) is not None:
            owner.bind().host_version += 1

    def train(self, mode: bool = True) -> Self:
        """Switch to training mode (or, with False, to evaluation mode); returns the layer."""
        self.training = check_flag("mode", mode)
        return self

    def eval(self) -> Self:
        """Switch to evaluation mode; returns the layer."""
        return self.train(False)

    def freeze(self) -> Self:
        """Keep parameters and running statistics as they are in all training; returns the layer.

        No gradient of the parameters is computed, and no optimizer, decay or penalty moves them. A frozen
        batchnorm layer normalises by its running statistics, as in evaluation mode. A backward stops below
        the lowest layer that trains.
        """
        return self._freeze(True)

    def unfreeze(self) -> Self:
        """Train again; returns the layer."""
        return self._freeze(False)

    @property
    def frozen(self) -> bool:
        """Whether it has parameters or running statistics, and all of them are frozen."""
        held = self._parameters.values()
        return bool(held) and all(p.frozen for p in held)

    def _freeze(self, frozen: bool) -> Self:
        held = self._parameters.values()
        if (owner := self._owner) is not None:
            owner._set_frozen(held, frozen)
        else:
            for p in held:
                p.frozen = frozen
        return self

    def _modes(self) -> Mapping[int, bool]:
        """The modes of the layers that it holds, by their ids."""
        return {}

    @property
    def _keeps_statistics(self) -> bool:
        """Whether its running statistics are frozen, so that it works as in evaluation mode."""
        return any(p.buffer and p.frozen for p in self._parameters.values())

    @property
    def grads(self) -> dict[str, Array]:
        """Gradients by name: read-only views in PyTorch's shapes."""
        return parameter.gradients(self._ready())

    def parameters(self) -> list[Array]:
        """The trainable parameters: read-only views in PyTorch's shapes."""
        return list(parameter.values(self._ready(), without_buffers=True).values())

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers by name: copies in PyTorch's shapes."""
        return parameter.snapshot(self._ready())

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy parameters and buffers from a mapping of PyTorch's names to arrays of its shapes."""
        self._alone("load_state_dict")
        parameter.load(self._ready(), state, strict=strict)

    def _assignable(self) -> Iterable[str]:
        return [*super()._assignable(), "training"]

    def __getattr__(self, name: str) -> Any:
        if name in self.__dict__.get("_parameters", ()):
            p = self._ready()[name]
            assert p.value is not None
            return parameter.readonly(p.shown(p.value))
        return super().__getattr__(name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = self.__dict__
        if name in own.get("_parameters", ()):
            raise AttributeError(
                f"{self.label}: {name} cannot be assigned: values are written by load_state_dict or within "
                "model.edit()"
            )
        if name[0] == "_" and name not in own.get("_config", ()):
            object.__setattr__(self, name, value)  # as the bases do, which ask more before
        else:
            super().__setattr__(name, value)

    def __copy__(self) -> Self:
        # Never shallow: two layers must not share values.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        kept = {**self.__dict__, "_claims": (), "_path": "", "_index": 0, "_pending": None}
        return {**kept, "_seed": None} if self._claims else kept  # it is the model's

    def _alone(self, what: str) -> None:
        if self._owner is not None:
            raise UsageError(f"{self.label} belongs to a model: call {what} of the model")

    def _dtype(self) -> Any:
        for p in self._parameters.values():
            if p.value is not None and p.dtype is None:
                return p.value.dtype
        return None

    def _ready(self) -> dict[str, Parameter]:
        if (owner := self._owner) is not None:
            owner.bind()
        elif self._parameters:
            self._prepare(np.dtype("float32"))
        return self._parameters

    def _prepare(self, dtype: Any) -> None:
        """Outside a model: create the parameters in this dtype, unless they have one."""
        if self._dtype() is None:
            self._initialize(dtype, self._seed)

    def _initialize(self, dtype: Any, seed: int | None) -> None:
        self._seed = random.fresh_seed() if seed is None else seed
        for place, p in enumerate(self._parameters.values()):
            p.value = p.draw(dtype, self._seed, self._index, place)
            p.grad = None if p.buffer else np.zeros_like(p.value)
