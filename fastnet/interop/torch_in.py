"""Models of PyTorch's modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet import layers as fl
from fastnet.errors import FastnetError, HyperparameterError, UsageError, shown
from fastnet.interop.torch_table import ARGUMENTS, arguments_of, listed, torch_package
from fastnet.interop.values import filled
from fastnet.layers.base import Layer
from fastnet.model import Sequential

DTYPES = ("float32", "float64")


def from_torch(module: Any) -> Sequential:
    """The model of a torch.nn.Sequential, or of one module of PyTorch, with copies of its weights.

    module: a torch.nn.Sequential, also with others in it, of Linear, BatchNorm1d, LayerNorm, RMSNorm,
        Dropout, AlphaDropout, Flatten, Identity, GLU, Softmax, LogSoftmax and the activations that fastnet
        has by PyTorch's names; or a single one of these. An Embedding may be the first, of codes
        (rows, 1); a Flatten may follow it.

    Names in `state_dict` are the same, but for the Embedding's in a model of several modules; so are modes,
    and parameters without requires_grad are frozen. A module that stands in several places is one layer;
    so are modules of one class, with equal options, that share all their parameters.
    The model has the dtype of the parameters, float32 or float64. It shares no memory with the module,
    which stays as it is.

    Raises UsageError for modules that fastnet lacks, and lists all of them; so it does for those that share
    only some of their parameters, and for hooks and parametrisations, which compute something else than
    the module's class says.
    """
    torch = torch_package()
    if not isinstance(module, torch.nn.Module):
        raise HyperparameterError(f"module is {shown(module)}; expected a torch.nn.Sequential")
    whole = module if type(module) is torch.nn.Sequential else torch.nn.Sequential(module)
    return _Reader(torch, whole).model()


class _Reader:
    def __init__(self, torch: Any, whole: Any) -> None:
        self.torch, self.whole = torch, whole
        self.made: dict[int, Any] = {}
        self.owners: dict[
            int, tuple[str, Any]
        ] = {}  # by parameter: its first module, with its path
        for path, part in whole.named_modules():
            for parameter in part.parameters(recurse=False):
                self.owners.setdefault(id(parameter), (path, part))
        held = (*whole.parameters(), *(b for b in whole.buffers() if b.is_floating_point()))
        found = {str(value.dtype).removeprefix("torch.") for value in held}
        if len(found) > 1 or not found <= {*DTYPES}:
            raise UsageError(
                f"module has parameters of the dtypes {', '.join(sorted(found))}; expected float32 or "
                "float64 alone: write module.float()"
            )
        self.dtype = found.pop() if found else "float32"

    def model(self) -> Sequential:
        """The model."""
        if not len(self.whole):
            raise UsageError("module has no modules; expected at least one")
        missing = [
            f"{path} ({type(module).__name__}{reason and ': '}{reason})"
            for path, module in self.whole.named_modules()
            if (reason := self._refused(path, module)) is not None
        ]
        if missing:
            raise UsageError(f"fastnet has no layers for these modules: {listed(missing)}")
        layers = [self._layer(m) for m in self.whole]
        return Sequential(*layers, dtype=self.dtype)

    def _refused(self, path: str, module: Any) -> str | None:
        """Why a module has no layer, "" where it is of an unknown class; None: it has one."""
        nn, name = self.torch.nn, type(module).__name__
        hooks = (module._forward_hooks, module._forward_pre_hooks)
        if any(hooks):
            return "it has hooks"
        if type(module) is nn.Sequential:
            return None if len(module) else "it is empty"
        if type(module) is nn.Embedding:
            first = next(iter(self.whole), None) is module
            plain = module.padding_idx is None and module.max_norm is None
            return None if first and plain else "expected the first one, without other options"
        if name not in ARGUMENTS or type(module) is not getattr(nn, name, None):
            return ""
        first = self._first(module)
        if first is not module and not _same(first, module):
            shared = [
                n for n, p in module.named_parameters() if self.owners[id(p)][1] is not module
            ]
            others = {self.owners[id(p)][0] for p in module.parameters()} - {path}
            with_them = listed(sorted(others))
            return f"it shares {listed(shared)} with {with_them}, but is not the same otherwise"
        if name in ("Softmax", "LogSoftmax", "GLU") and module.dim not in (-1, 1):
            return f"dim is {module.dim}"
        if name == "Flatten" and (module.start_dim, module.end_dim) != (1, -1):
            return f"start_dim is {module.start_dim} and end_dim {module.end_dim}"
        if name in ("LayerNorm", "RMSNorm") and len(module.normalized_shape) > 1:
            return f"normalized_shape is {tuple(module.normalized_shape)}"
        return None

    def _first(self, module: Any) -> Any:
        """The first module with a parameter of this one."""
        found = (self.owners[id(p)][1] for p in module.parameters())
        return next((owner for owner in found if owner is not module), module)

    def _layer(self, module: Any) -> Any:
        if type(module) is not self.torch.nn.Sequential:
            module = self._first(module)
        if id(module) not in self.made:
            if type(module) is self.torch.nn.Sequential:
                self.made[id(module)] = Sequential(*map(self._layer, module))
            else:
                self.made[id(module)] = self._made(module)
        return self.made[id(module)]

    def _made(self, module: Any) -> Layer:
        name = type(module).__name__
        try:
            if name == "Embedding":
                layer: Layer = fl.Embedding(module.num_embeddings, module.embedding_dim)
            else:
                layer = getattr(fl, name)(**arguments_of(module, name))
            given = {**dict(module.named_parameters()), **dict(module.named_buffers())}
            values = {n: np.asarray(v.detach().cpu().numpy()) for n, v in given.items()}
            filled(layer, values, self.dtype)
        except FastnetError as error:
            raise UsageError(f"the module {name} cannot be a layer: {error}") from None
        for own, parameter in module.named_parameters():
            layer._parameters[own].frozen = not parameter.requires_grad
        return layer.train(module.training)


def _same(one: Any, other: Any) -> bool:
    """Whether two modules share all that they are, so that one layer does for both."""
    name = type(one).__name__
    if type(other) is not type(one) or arguments_of(other, name) != arguments_of(one, name):
        return False
    mine, theirs = dict(one.named_parameters()), dict(other.named_parameters())
    shared = mine.keys() == theirs.keys() and all(mine[n] is theirs[n] for n in mine)
    return shared and not any(True for _ in other.buffers()) and one.training == other.training
