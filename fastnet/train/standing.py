"""Where a run stands: what is loaded, its place within an epoch, and the hooks and pauses between steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastnet.optim.optimizer import OptimizerState
from fastnet.train.callbacks.base import Callback, Hook, hooks
from fastnet.train.chain import Span


@dataclass(eq=False, repr=False)
class Loaded:
    """Steps that an executor has ready, and how far they are done."""

    state: OptimizerState
    changes: int  # of the optimizer's hyper-parameters, when the steps' numbers were made
    span: Span
    done: int = 0
    first: int = 0  # of whole epochs the number of the first, among those whose rows are known
    evaluating: float = 0.0  # seconds that evaluations within native calls took

    def serves(self, state: OptimizerState) -> bool:
        """Whether something is left, and is still what is to be done."""
        left = self.done < len(self.span.ends)
        return left and state is self.state and state.changes == self.changes


@dataclass(eq=False, repr=False)
class Position:
    """Where a run stands within an epoch."""

    done: int = 0  # steps of the epoch
    seconds: float = 0.0  # that they took
    # Loss and metrics of the epoch, where all is done but the evaluation.
    found: dict[str, float] | None = None

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch has begun."""
        return not self.done and self.found is None


class Hooks:
    """The hooks within epochs that callbacks have overridden."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.batch_begin = hooks(callbacks, "on_train_batch_begin")
        self.batch_end = hooks(callbacks, "on_train_batch_end")
        self.epoch_begin = hooks(callbacks, "on_epoch_begin")
        self.test_begin = hooks(callbacks, "on_test_begin")
        self.test_end = hooks(callbacks, "on_test_end")

    @property
    def of_batches(self) -> bool:
        """Whether each step is to be a call of its own."""
        return bool(self.batch_begin or self.batch_end)


def call(each: Sequence[Hook], *given: Any) -> None:
    """Call hooks, each with copies of the dicts."""
    for hook in each:
        hook(*(dict(one) if isinstance(one, dict) else one for one in given))


class Pauses:
    """What happens between the steps of a run, at points from which it can go on: here nothing.

    A run calls `pause` at such points, and `steps` or `epochs` for the steps and epochs until the next
    point that has to be one. Within the epochs of a run that cannot go on there it calls `leave`.
    """

    def pause(self) -> None:
        """Called where all counts agree; may raise."""

    def leave(self) -> None:
        """Called where the run may end and could not go on; may raise."""

    def steps(self) -> int | None:
        """Steps until the next point that has to be one; None: it need not be after a certain step."""

    def epochs(self) -> int | None:
        """Epochs until the next point that has to be one."""

    def end(self, reason: str) -> None:
        """Called when the run is over, before callbacks hear of that."""
