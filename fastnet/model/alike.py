"""Models that are alike: of one structure, whose graphs differ in nothing but the arrays of parameters."""

from __future__ import annotations

from typing import Any

from fastnet.layers import Linear

_is_plain: dict[type, bool] = {}  # layers without arguments and parameters, such as ReLU


def kind_of(model: Any, ending: Any) -> Any:
    """What the graph of a plain model depends on, besides its input's shape, its modes and its ending.

    None: on more than that. A plain model has layers of fastnet's own, each in one place: Linear, and such
    without arguments; and it ends in a loss of fastnet's own, or in none.
    """
    layers = model._layers
    if ending is not None and not _is_own(type(ending.loss), "fastnet.losses."):
        return None
    found: list[Any] = [model.dtype.name]
    for layer in layers:
        kind = type(layer)
        if kind is Linear:
            parameters = layer._parameters.values()
            found.append((kind, *[(p.shape, p.frozen) for p in parameters]))
            continue
        plain = _is_plain.get(kind)
        if plain is None:
            plain = _is_plain[kind] = _is_own(kind, "fastnet.layers.") and not kind._constructor()
        if not plain or layer._parameters:
            return None
        found.append(kind)
    return tuple(found) if len({id(layer) for layer in layers}) == len(layers) else None


def _is_own(kind: type, room: str) -> bool:
    return kind.__module__.startswith(room)
