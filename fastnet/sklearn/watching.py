"""scikit-learn's own callbacks, an experimental protocol of version 1.9, around the epochs of a fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnet.train import Callback

try:
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:  # before 1.9

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Nothing: this scikit-learn has no callbacks."""

    def with_callbacks(method: Any) -> Any:
        """The method itself."""
        return method


__all__ = ["CallbackSupportMixin", "Watched", "watching"]


def is_watched(estimator: Any) -> bool:
    """Whether an estimator, or one that contains it, has callbacks of scikit-learn."""
    return any(hasattr(estimator, name) for name in ("_skl_callbacks", "_parent_callback_ctx"))


@with_callbacks
def _managed(estimator: Any, fit: Callable[[], Any]) -> Any:
    return fit()


def watching(estimator: Any, fit: Callable[[], Any]) -> Any:
    """A fit, at whose end callbacks are torn down, where there are any."""
    return _managed(estimator, fit) if is_watched(estimator) else fit()


class Watched:
    """A fit that tells scikit-learn's callbacks of itself and of its epochs, where there are any."""

    def __init__(self, estimator: Any, X: Any, y: Any, weight: Any, epochs: int) -> None:
        self.estimator = estimator
        self.given = {
            "estimator": estimator,
            "X": X,
            "y": y,
            "metadata": None if weight is None else {"sample_weight": weight},
        }
        self.root = None
        if is_watched(estimator):
            self.root = estimator._init_callback_context(max_subtasks=epochs)
        if self.root is not None:
            self.root.call_on_fit_task_begin(**self.given)

    @property
    def callbacks(self) -> list[Callback]:
        """What tells of epochs."""
        return [] if self.root is None or not self.root._callbacks else [_Epochs(self)]

    def end(self) -> None:
        """Tell of the end of the fit."""
        if self.root is not None:
            self.root.call_on_fit_task_end(**self.given, reconstruction_attributes={})


class _Epochs(Callback):
    """Each epoch is a task below the fit; a callback of scikit-learn may end the training after one."""

    def __init__(self, watched: Watched) -> None:
        super().__init__(watched=watched)
        self._task: Any = None

    def on_epoch_begin(self, epoch: int) -> None:
        """Begin the task."""
        watched = self.watched  # type: ignore[attr-defined]
        self._task = watched.root.subcontext(task_name="epoch")
        self._task.call_on_fit_task_begin(**watched.given)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any]) -> None:
        """End it; the estimator predicts by the parameters of this epoch."""
        watched = self.watched  # type: ignore[attr-defined]
        stop = self._task.call_on_fit_task_end(
            **watched.given, reconstruction_attributes={"loss_": float(logs["loss"])}
        )
        if stop:
            self.trainer.stop_training = True
