"""Builder: the interface through which layers and losses apply ops."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastnet import random
from fastnet.op import Op

# The mode of layers in training whose statistics are those of all ranks; it counts as True.
SYNCED: Any = 2


class Builder:
    """Base of the graph that the compiler reads and of the tape of a layer outside a model.

    training: whether the current layer is in training mode; SYNCED where its rows are part of a minibatch
    that several ranks share. label: the current layer's name in messages.
    """

    training: bool = True
    label: str = ""

    def __init__(self, modes: Mapping[int, bool] | None = None) -> None:
        self._modes = {} if modes is None else modes  # by a layer's id; other layers inherit theirs
        self._uses: dict[int, int] = {}
        self._use = 0  # earlier uses of the current layer

    def apply(self, op: type[Op], *, stream: int = 0, **arguments: Any) -> Any:
        """Apply one op; returns its main output.

        arguments: its inputs and scalars by name, and the sizes of dimensions that no input has.
        stream: the op's random stream, if it draws. A layer that is used again draws other numbers.
        """
        raise NotImplementedError

    def output(self, name: str) -> Any:
        """Another output of the last op applied."""
        raise NotImplementedError

    def reshape(self, x: Any, row: tuple[int, ...], times: int = 1) -> Any:
        """The tensor x with rows of another shape and as many numbers; nothing is copied.

        times: the rows for each row of the minibatch. With k of them, ops see k rows where layers see one.
        """
        raise NotImplementedError

    def source(self, tensor: Any) -> Any:
        """The node of a graph whose main output this is; None: there is none, or nodes are not kept."""
        return None

    def matrices(self) -> list[Any]:
        """The trained parameters with two dimensions that ops of a graph use, in order, each once."""
        return []

    def enter(self, layer: Any, x: Any) -> Any:
        """The output of a layer for x, in the layer's own mode; layers that contain others call this.

        Raises ShapeError where x does not fit the layer.
        """
        layer.output_shape(tuple(x.shape[1:]))
        before = self.training, self._use, self.label
        key = id(layer)
        self.training = self._modes.get(key, self.training)
        self._use = self._uses.get(key, 0)
        self._uses[key] = self._use + 1
        self.label = getattr(layer, "label", self.label)  # a model has none
        try:
            return layer.emit(self, x)
        finally:
            self.training, self._use, self.label = before

    def stream(self, stream: int) -> int:
        """The random stream of this use of the layer; the first use has the layer's own stream."""
        return random.stream_of_use(stream, self._use)
