"""Training steps of fastnet on each backend, and the check that its peers' are the same work.

A contender's `run(steps)` carries out that many steps, each with the next minibatch, and goes on where
it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from contenders import peers
from contenders.loops import LOOPS, Fastnet
from contenders.workloads import SEED, Workload
from fastnet.backends.steps import Steps, Update


class FastnetChunk(Fastnet):
    """A chunk of steps in one native call, as `Trainer.fit` makes it; gathers its rows."""

    def __init__(self, workload: Workload, backend: str) -> None:
        super().__init__(workload, backend)
        self.data = self.model.data(self.loss, self.x, self.y, "X", "y")
        self.executor = self.model.training_executor(self.data, self.batch, self.loss)
        self._index, self._offsets = self.order, np.zeros(1, np.int64)  # as long as needed so far

    def rows(self, steps: int) -> tuple[Any, Any]:
        """The rows of the next steps, and where each step's begin."""
        first = self.taken * self.batch % len(self.order)
        end = first + steps * self.batch
        if len(self._index) < end:
            self._index = np.resize(self.order, end + len(self.order))
        if len(self._offsets) != steps + 1:
            self._offsets = np.arange(0, steps * self.batch + 1, self.batch)
        return self._index[first:end], self._offsets

    def run(self, steps: int) -> Any:
        """One call of the backend; returns the losses of the steps."""
        state = self.model.optimizer_state(self.optimizer)
        update = Update(
            state.rule.program, state.rule.segment, self.optimizer.hyper(state.steps, steps)
        )
        index, offsets = self.rows(steps)
        losses = self.executor.train(self.data, Steps(index, offsets, SEED, self.taken), update)
        self.model.touch(by_backend=True)
        state.steps += steps
        self.taken += steps
        return losses


def fastnets(names: Iterable[str]) -> dict[str, Callable[[Workload], FastnetChunk]]:
    """fastnet on each backend, a chunk of steps in one native call."""
    return {
        f"fastnet {name}": lambda workload, name=name: FastnetChunk(workload, name)
        for name in names
    }


def check_same_work(
    workload: Workload,
    names: Iterable[str],
    steps: int | None = None,
    others: Mapping[str, Callable[[Workload], Any]] | None = None,
) -> dict[str, float]:
    """Assert that all make the same losses from the same start; each one's largest difference.

    others: the peers, by default those that are installed.

    It is relative to the loss of fastnet's reference, over the first `steps` steps (default 10, or 5 with
    batchnorm), without dropout (whose draws differ by design). Few steps, as rounding errors grow tenfold
    every few steps of a deep net. Of scikit-learn the mean loss is compared, where it can train the net
    at all, and to 1e-3: its Adam adds ε before the correction of the bias, not after.
    """
    if steps is None:
        steps = 5 if workload.batchnorm else 10
    plain = workload.without_dropout()
    truth = FastnetChunk(plain, "reference").run(steps)
    found = {}
    for name in names:
        for way in (FastnetChunk, *LOOPS.values()):
            losses = way(plain, name).run(steps)
            worst = float(np.max(np.abs(losses - truth) / truth))
            found[f"fastnet {name}"] = max(worst, found.get(f"fastnet {name}", 0.0))
    for name, make in (peers.available() if others is None else others).items():
        if name == "scikit-learn":
            if not workload.batchnorm:
                mlp = peers.Sklearn(plain, min(steps, plain.batches), shuffle=False)
                mean = truth[: mlp.quantum].mean()
                found[name] = float(abs(mlp.mean_loss(plain) - mean) / mean)
        elif name != "PyTorch compiled":  # compiles for long; the code is PyTorch's own
            peer = make(plain)
            whole = -(-steps // peer.quantum) * peer.quantum
            losses = np.array([float(loss) for loss in peer.run(whole)][:steps])
            found[name] = float(np.max(np.abs(losses - truth) / truth))
    limits = {"scikit-learn": 1e-3}
    wrong = {n: f"{worst:.1e}" for n, worst in found.items() if not worst < limits.get(n, 1e-4)}
    if wrong:
        raise AssertionError(f"{workload.name}: losses differ from the reference's: {wrong}")
    return found
