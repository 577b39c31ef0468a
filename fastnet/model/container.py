"""Container: a sequence of layers, and the segments that hold their parameters."""

from __future__ import annotations

import copy
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Self

import numpy as np

from fastnet import parameter, random
from fastnet.backends import registry
from fastnet.builder import Builder
from fastnet.configured import Configured
from fastnet.data.codes import Code
from fastnet.data.terms import UNKNOWN, Terms
from fastnet.errors import (
    HyperparameterError,
    UsageError,
    check_flag,
    check_seed,
    shown,
)
from fastnet.layers.base import Layer, Shape
from fastnet.layers.block import Holder, check_layers, codes_through, width_of, width_through
from fastnet.op import Array
from fastnet.parameter import Parameter
from fastnet.plan.segments import Storage

_models: weakref.WeakSet[Container] = weakref.WeakSet()


class Container(Holder, Configured, base=True):
    """The part of a Sequential that does not run: layers, their names, values and gradients."""

    _may_be_shared: ClassVar[bool] = True
    _terms: Terms = UNKNOWN  # what trainers have told of the data

    # Assigning one of these attributes raises an error with this remedy.
    _instead: ClassVar = {
        "backend": 'write model.to("c")',
        "training": "write model.train() or model.eval()",
        "precision": 'make a model by Sequential(..., precision="bfloat16") and load model.state_dict()',
        "dtype": 'make a model by Sequential(..., dtype="float64") and load model.state_dict()',
        "seed": "make a model by Sequential(..., seed=0)",
        "layers": "make a model of other layers by Sequential(...)",
        "grads": "value_and_grad and backward write it, zero_grad() clears it",
    }

    def __init__(
        self,
        *layers: Any,
        dtype: Any = "float32",
        backend: str = "auto",
        seed: int | None = None,
        precision: str | None = None,
    ) -> None:
        self._dtype = _check_dtype(dtype)
        self._given: dict[str, Any] = {
            "backend": backend,
            "seed": seed,
            "precision": _check_precision(precision, self._dtype),
        }
        self._seed = _seed_or(seed, random.fresh_seed())
        if registry.check_name(backend) != "auto":
            registry.get(backend)  # raises now rather than at the first use
        check_layers(type(self).__name__, {str(i): layer for i, layer in enumerate(layers)})
        self._layers = layers
        self._draws = 0  # counts training forwards outside a trainer; dropout's step
        with self._owning():
            self._start()
            self._check_widths()

    def _start(self) -> None:
        """Take ownership of the layers; memory and plans come at the first use."""
        self._claims = ()
        self._storage: Storage | None = None
        self._lock = threading.Lock()  # whoever changes values holds it
        self._names: dict[str, Parameter] | None = None
        self._holder = 0  # the thread that acquired the lock last
        self._first = threading.RLock()  # guards what the first use makes
        _models.add(self)
        self._own()
        self._take_over(self._dtype, self._seed)
        self._flat = list(self._walk())
        for _, layer in self._flat:
            # A layer keeps the seed: if the model is dropped before its first use, it draws the same.
            layer._seed = self._seed

    def _check_widths(self) -> None:
        """Raise ShapeError where a layer does not accept the known width of its input."""
        if (known := self.input_shape) is not None:
            self.output_shape(known)
            return
        shape: Shape | None = None
        for layer in self._layers:
            if shape is None and (width := layer.in_width) is not None:
                shape = (width,)
            if shape is not None:
                shape = layer.output_shape(shape)

    def _take_over(self, dtype: np.dtype[Any], seed: int) -> None:
        """Adopt dtype and seed of the model that now contains this one."""
        self._dtype, self._seed = dtype, seed
        super()._take_over(dtype, seed)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of parameters, outputs and arithmetic."""
        return self._dtype

    @property
    def precision(self) -> str | None:
        """How products round their operands: None, or "bfloat16"; the outermost model's."""
        # A copy pickled by an older version has none. A part that outlives a model keeps its dtype.
        given = getattr(self._roots()[0], "_given", {})
        return given.get("precision") if self._dtype == np.float32 else None

    @property
    def seed(self) -> int:
        """The seed of initialisation and, in loops without a trainer, of dropout."""
        return self._seed

    # Structure.

    @property
    def _is_used(self) -> bool:
        return self._storage is not None

    def _check_owners(self) -> None:
        """Raise UsageError where something in this model is part of another one, too."""
        for path, child in self._all():
            if any(root is not self for root in child._roots()):
                raise UsageError(
                    f"layer {path} ({type(child).__name__}) is part of another model, too; give each model "
                    "layers of its own (copy.deepcopy makes one)"
                )

    def _children(self) -> Iterator[tuple[str, Any]]:
        for i, layer in enumerate(self._layers):
            yield str(i), layer

    def __len__(self) -> int:
        return len(self._layers)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._layers)

    def __getitem__(self, index: Any) -> Any:
        """A layer by position, or a tuple of layers for a slice."""
        try:
            return self._layers[index]
        except TypeError:
            raise HyperparameterError(
                f"the index of a layer is {shown(index)}; expected an integer or a slice"
            ) from None
        except IndexError:
            raise IndexError(
                f"the index of a layer is {shown(index)}; expected an integer in "
                f"[{-len(self)}, {len(self) - 1}]"
            ) from None

    def _argument_values(self) -> dict[str, Any]:
        found: dict[str, Any] = {"layers": self._layers}
        if self._owner is None:  # a nested model has only its layers
            found |= {"dtype": self._dtype.name, **self._given}
        return {name: value for name, value in found.items() if name in self._constructor()}

    def __repr__(self) -> str:
        lines = [
            f"    {line}" for word in self._argument_words() for line in f"{word},".split("\n")
        ]
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])

    @property
    def layers(self) -> list[tuple[str, Layer]]:
        """The flattened layers with their names in the state dict, such as "0" or "2.1"."""
        return list(self._flat)

    @property
    def input_shape(self) -> Shape | None:
        """The shape of one input row; None where no layer fixes it."""
        width = self.in_width
        return None if width is None else (width,)

    @property
    def in_width(self) -> int | None:
        """The number of input features; None where no layer fixes it."""
        return width_of(self._layers)

    def width_before(self, width: int) -> int | None:
        """The number of input features that gives `width` outputs; None: it is not known."""
        return width_through(self._layers, width)

    @property
    def any_rows(self) -> bool:
        """Whether input rows may have any number of dimensions."""
        return bool(self._layers[0].any_rows)

    def output_shape(self, shape: Shape) -> Shape:
        """The shape of one output row for a shape of one input row; ShapeError where it does not fit."""
        for layer in self._layers:
            shape = layer.output_shape(shape)
        return shape

    def find_codes(self, places: list[int], found: list[Code]) -> list[int]:
        """The columns of integer codes that its layers read; see `Layer.find_codes`."""
        return codes_through(self._layers, places, found)

    def emit(self, g: Builder, x: Any) -> Any:
        """Apply the layers on the builder, one after the other."""
        for layer in self._layers:
            x = g.enter(layer, x)
        return x

    @property
    def training(self) -> bool:
        """Whether any layer is in training mode."""
        return any(layer.training for _, layer in self._flat)

    def train(self, mode: bool = True) -> Self:
        """Switch every layer to training mode (or, with False, to evaluation mode)."""
        mode = check_flag("mode", mode)
        for _, layer in self._flat:
            layer.train(mode)
        return self

    def eval(self) -> Self:
        """Switch every layer to evaluation mode; returns the model."""
        return self.train(False)

    def freeze(self, *names: str) -> Self:
        """Keep parameters and running statistics as they are in all training; returns the model.

        names: names of `state_dict` or patterns with * and ?, such as "0.*" or "*.bias"; without any, all.

        See `Layer.freeze`. Raises HyperparameterError where one fits nothing, and changes nothing.
        """
        return self._freeze(names, True)

    def unfreeze(self, *names: str) -> Self:
        """Train these, or all, again; returns the model."""
        return self._freeze(names, False)

    @property
    def frozen(self) -> list[str]:
        """The names of the frozen parameters and running statistics."""
        return [name for name, p in self._named().items() if p.frozen]

    def _freeze(self, names: tuple[str, ...], frozen: bool) -> Self:
        named = self._named()
        chosen = {} if names else named
        for pattern in names:
            if not isinstance(pattern, str):
                raise HyperparameterError(
                    f'names has {shown(pattern)}; expected names or patterns, such as "0.*"'
                )
            fitting = {name: p for name, p in named.items() if fnmatchcase(name, pattern)}
            if not fitting:
                raise HyperparameterError(
                    f"names has {pattern!r}, which fits nothing in the model; it has {', '.join(named)}"
                )
            chosen = chosen | fitting
        self._set_frozen(chosen.values(), frozen)
        return self

    def _set_frozen(self, parameters: Iterable[Parameter], frozen: bool) -> None:
        if (owner := self._owner) is not None:
            owner._set_frozen(parameters, frozen)
            return
        with self.training_lock():
            given, storage = {id(p): p for p in parameters}, self.bind()
            now = {id(p): p for p in self._named().values() if p.frozen and id(p) not in given}
            storage.freeze((now | given if frozen else now).values())

    # Parameters.

    def bind(self) -> Storage:
        """The model's segments, with everything that `edit` has written so far.

        The first call allocates them and initialises the parameters that have no value yet.
        """
        if (owner := self._owner) is not None:
            storage: Storage = owner.bind()
            return storage
        if self._storage is None:
            with self._first:
                if self._storage is None:
                    self._check_owners()
                    self._draw(self.seed, keep=True)
                    held = [p for _, layer in self._flat for p in layer._parameters.values()]
                    self._storage = Storage(held, self.dtype)
        if self._storage.editing:
            self._storage.take_edits()
        return self._storage

    def _draw(self, seed: int, *, keep: bool) -> None:
        for index, (_, layer) in enumerate(self._flat):
            for place, p in enumerate(layer._parameters.values()):
                if p.value is None:
                    p.value = p.draw(self.dtype, seed, index, place)
                elif not (keep or p.fitted):
                    np.copyto(p.value, p.draw(self.dtype, seed, index, place))

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw parameters and buffers anew, from `seed` or the model's own; gradients become zero."""
        self._root("reset_parameters")
        seed = _seed_or(seed, self.seed)
        with self.training_lock():
            storage = self.bind()
            self._draw(seed, keep=False)
            storage.segments["grads"].fill(0)
            self._draws = 0
            self.touch()

    def touch(self, *, by_backend: bool = False) -> None:
        """Note that values have changed, so that derived copies and pending gradients become invalid."""
        storage = self.bind()
        storage.version += 1
        storage.host_version += not by_backend

    @property
    def version(self) -> int:
        """A number that grows with every change of parameters or buffers."""
        return self.bind().version

    def _named(self) -> dict[str, Parameter]:
        """Parameters and buffers by name, with their values in the model's segments."""
        self.bind()
        if self._names is None:
            self._names = {
                f"{path}.{name}": p
                for path, layer in self._walk()
                for name, p in layer._parameters.items()
            }
        return self._names

    def parameters(self) -> list[Array]:
        """Parameters, frozen ones too, without buffers: read-only views in PyTorch's shapes and order."""
        return list(self.named_parameters().values())

    def named_parameters(self) -> dict[str, Array]:
        """Parameters by name, such as "0.weight", frozen ones too, without buffers: read-only views."""
        return parameter.values(self._named(), without_buffers=True)

    @property
    def grads(self) -> dict[str, Array]:
        """Gradients by the names of `named_parameters`: read-only views in PyTorch's shapes."""
        return parameter.gradients(self._named())

    def state_dict(self) -> dict[str, Array]:
        """Parameters and buffers by PyTorch's names and in PyTorch's shapes, as copies.

        The arrays are new, writable and C-contiguous, and no later change of the model affects them, so
        that `np.savez("model.npz", **model.state_dict())` works. `named_parameters` has views.
        """
        return parameter.snapshot(self._named())

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Copy parameters and buffers from a mapping of PyTorch's names to arrays of its shapes.

        Raises StateDictError, and changes nothing, where a name is missing or unexpected (unless
        strict=False) or a shape differs.
        """
        self._root("load_state_dict")
        with self.training_lock():
            parameter.load(self._named(), self._without_aliases(state), strict=strict)
            self.touch()

    def _without_aliases(self, state: Any) -> Any:
        """A state dict without the further names of shared layers, which PyTorch's has."""
        further = {f"{path}." for path in self._aliases()} if isinstance(state, Mapping) else ()
        if not further:
            return state
        return {n: v for n, v in state.items() if f"{str(n).rpartition('.')[0]}." not in further}

    def edit(self) -> AbstractContextManager[parameter.Drafts]:
        """Write to parameters and buffers: `with model.edit() as p: p["0.bias"][:] = 0`.

        The block gets writable copies by the names of `state_dict`. The model takes their values before
        each of its uses within the block and when the block ends, also by an error. Afterwards writing
        to the copies has no effect on the model.
        """
        self._root("edit")
        return parameter.Editing(self)

    def zero_grad(self) -> None:
        """Set every gradient to zero."""
        self._root("zero_grad")
        with self.training_lock():
            storage = self.bind()
            storage.segments["grads"].fill(0)
            storage.host_version += 1

    def training_lock(self) -> AbstractContextManager[Any]:
        """The lock of the model's values; UsageError where another thread or call holds it.

        This is the lock itself, because Ctrl-C cannot interrupt its `with` halfway and leave it held.
        If two threads ask at the same moment, one waits for the other.
        """
        if self._lock.locked():
            raise UsageError(
                "the model is being trained or edited elsewhere; wait for that to end, or train a copy"
            )
        self._holder = threading.get_ident()
        return self._lock

    def _forked(self) -> None:
        """In the child of a fork: release locks that threads of the parent held."""
        self._first = threading.RLock()
        if self._lock.locked() and self._holder != threading.get_ident():
            self._lock = threading.Lock()
            if self._storage is not None:
                self._storage.editing = False
                self.touch()

    def _root(self, what: str) -> None:
        if self._owner is not None:
            raise UsageError(f"this Sequential is part of another model: call its {what}")

    # Copies.

    def __copy__(self) -> Self:
        # Never shallow: two models must not share values.
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        self.bind()  # draws the values that the copy must share
        kept = {name: self.__dict__[name] for name in ("_given", "_layers", "_draws")}
        return {**kept, "_dtype": self.dtype, "_seed": self.seed, "_terms": self._terms}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._start()


def _seed_or(seed: int | None, default: int) -> int:
    known = check_seed("seed", seed)
    return default if known is None else known


def _check_dtype(dtype: Any) -> np.dtype[Any]:
    for known in (np.dtype("float32"), np.dtype("float64")):
        with suppress(Exception):  # NumPy's errors for what is no dtype
            if dtype is not None and np.dtype(dtype) == known:
                return known
    raise HyperparameterError(f"dtype is {shown(dtype)}; expected 'float32' or 'float64'")


def _check_precision(precision: Any, dtype: np.dtype[Any]) -> str | None:
    if precision is None:
        return None
    if not isinstance(precision, str) or precision != "bfloat16":
        raise HyperparameterError(
            f"precision is {shown(precision)}; expected 'bfloat16', or None for products in the dtype"
        )
    if dtype == np.float64:
        raise HyperparameterError(
            "precision is 'bfloat16' for dtype 'float64'; expected dtype='float32', in which bfloat16's "
            "products are added up, or precision=None"
        )
    return precision


def _forked() -> None:
    for model in list(_models):
        model._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
