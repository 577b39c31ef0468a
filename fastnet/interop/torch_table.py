"""PyTorch's modules and fastnet's layers of the same name, and models as PyTorch's Sequential."""

from __future__ import annotations

from typing import Any

from fastnet.errors import MissingExtra, UsageError
from fastnet.layers.block import Block, Holder

# The arguments that both classes of a name have, with equal meanings.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "AlphaDropout": ("p",),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
    "Dropout": ("p",),
    "ELU": ("alpha",),
    "Flatten": (),
    "GELU": ("approximate",),
    "GLU": (),
    "Hardsigmoid": (),
    "Hardswish": (),
    "Hardtanh": ("min_val", "max_val"),
    "Identity": (),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "LeakyReLU": ("negative_slope",),
    "Linear": ("in_features", "out_features", "bias"),
    "LogSigmoid": (),
    "LogSoftmax": ("dim",),
    "Mish": (),
    "PReLU": ("num_parameters",),
    "RMSNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "ReLU": (),
    "ReLU6": (),
    "SELU": (),
    "SiLU": (),
    "Sigmoid": (),
    "Softmax": ("dim",),
    "Softplus": ("beta", "threshold"),
    "Softsign": (),
    "Tanh": (),
}
MOST_NAMED = 12  # layers that a message lists


def torch_package() -> Any:
    """The package torch, or MissingExtra."""
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(f"to_torch needs PyTorch ({error}): pip install torch") from None
    return torch


def arguments_of(thing: Any, name: str) -> dict[str, Any]:
    """The arguments of a layer or module of a name; of a bias, whether there is one."""
    found = {argument: getattr(thing, argument) for argument in ARGUMENTS[name]}
    return {n: v is not None if n == "bias" else v for n, v in found.items()}


def listed(names: list[str]) -> str:
    """Some names of layers for a message."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(names[:MOST_NAMED])}{more}"


def to_torch(model: Any) -> Any:
    """`Sequential.to_torch`."""
    torch = torch_package()
    missing = [
        f"{path} ({type(part).__name__})"
        for path, part in model._all()
        if isinstance(part, Block) or not (isinstance(part, Holder) or _has_module(part))
    ]
    if missing:
        raise UsageError(f"PyTorch has no modules for these layers: {listed(missing)}")
    model.bind()
    made: dict[int, Any] = {}

    def module_of(part: Any) -> Any:
        if id(part) not in made:
            if isinstance(part, Holder):
                made[id(part)] = torch.nn.Sequential(*(module_of(p) for _, p in part._children()))
            else:
                made[id(part)] = _module(torch, part, model.dtype.name)
        return made[id(part)]

    return module_of(model)


def _has_module(layer: Any) -> bool:
    """Whether the layer is one of the table, and its numbers are no schedules."""
    name = type(layer).__name__
    if name not in ARGUMENTS or type(layer).__module__.split(".")[0] != "fastnet":
        return False
    return not any(hasattr(getattr(layer, n), "values") for n in ("p",) if n in ARGUMENTS[name])


def _module(torch: Any, layer: Any, dtype: str) -> Any:
    """The module of a layer, with copies of its values."""
    name = type(layer).__name__
    kind = getattr(torch.nn, name)
    with torch.random.fork_rng(devices=[]):  # its initial values draw nothing that others see
        module = kind(**arguments_of(layer, name)).to(getattr(torch, dtype)).train(layer.training)
    with torch.no_grad():
        for own, parameter in layer._parameters.items():
            value = torch.from_numpy(parameter.view().copy())
            target = getattr(module, own)
            target.copy_(value)
            if not parameter.buffer:
                target.requires_grad_(not parameter.frozen)
    return module
