"""Builder: what layers and losses describe themselves to, by the ops that they apply."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastnet import random
from fastnet.op import Op


class Builder:
    """Base of the graph being compiled and of the tape of a lone layer.

    training: whether the layer at work is in training mode.
    """

    training: bool = True

    def __init__(self, modes: Mapping[int, bool] | None = None) -> None:
        self._modes = {} if modes is None else modes  # by a layer's id; others are as around them
        self._uses: dict[int, int] = {}
        self._use = 0  # earlier ones of the layer at work

    def apply(self, op: type[Op], *, stream: int = 0, **arguments: Any) -> Any:
        """Add one op; returns its main output.

        stream: of its random draws, where it has any. A layer that is used again draws anew.
        """
        raise NotImplementedError

    def output(self, name: str) -> Any:
        """Another output of the last op applied."""
        raise NotImplementedError

    def enter(self, layer: Any, x: Any) -> Any:
        """The output of a layer for x, in the layer's own mode: how layers that hold others use them.

        Raises ShapeError where x does not fit it.
        """
        layer.output_shape(tuple(x.shape[1:]))
        before = self.training, self._use
        key = id(layer)
        self.training = self._modes.get(key, self.training)
        self._use = self._uses.get(key, 0)
        self._uses[key] = self._use + 1
        try:
            return layer.emit(self, x)
        finally:
            self.training, self._use = before

    def stream(self, stream: int) -> int:
        """The stream of this use of the layer: the first use has that of the layer itself."""
        return random.stream_of_use(stream, self._use)
