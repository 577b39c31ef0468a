"""Training steps whose loss is a Python function: what Executor.train does natively, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from fastnet.backends.executor import Executor
from fastnet.backends.steps import Data, Steps, Update, diverged, norm_diverged
from fastnet.errors import DivergenceError
from fastnet.interrupts import held_back
from fastnet.losses.function import FunctionLoss
from fastnet.op import Array


class FunctionSteps:
    """Trains on a function's loss by an executor of the model without a loss."""

    def __init__(self, executor: Executor, loss: FunctionLoss) -> None:
        self.executor, self.loss = executor, loss
        self.plan = executor.plan
        self.steps_done = 0  # of the last chunk of training steps
        self.losses: Array  # of that chunk
        self.resident = executor.resident

    def train(self, data: Data, steps: Steps, update: Update | None) -> Array:
        """Run a chunk of training steps; as Executor.train."""
        self.steps_done = 0
        self.losses = np.empty(len(steps.offsets) - 1)
        with held_back() as between, self.executor.resident():
            return self._train(data, steps, update, between)

    def _train(
        self, data: Data, steps: Steps, update: Update | None, between: Callable[[], None]
    ) -> Array:
        losses = self.losses
        for s, (begin, end) in enumerate(pairwise(steps.offsets)):
            rows, number = steps.index[begin:end], steps.first_step + s
            kept = self.executor.buffers()
            try:
                output = self.executor.forward_rows(data, rows, steps.seed, number)
                if steps.outputs is not None:
                    steps.outputs[begin:end] = output
                weight = None if data.w is None else data.w[rows]
                losses[s], gradient = self.loss.call(output, data.y[rows], weight)
                if not math.isfinite(losses[s]):
                    raise diverged(number, losses[s], self.loss.explain(output, data.y[rows]))
                with np.errstate(all="ignore"):  # what the dtype cannot hold is infinite
                    gradient = gradient.astype(output.dtype, copy=False)
                if not np.isfinite(gradient).all():
                    raise DivergenceError(
                        f"the gradient that {self.loss.name} returned in step {number} is not finite; "
                        "the step's update was not applied"
                    )
                self.executor.backward(gradient, accumulate=steps.accumulate)
                if update is not None:
                    self._update(update, s, number)
            except BaseException:  # the function's, or a second Ctrl-C
                self.executor.set_buffers(kept)
                raise
            self.steps_done += 1
            between()
        return losses

    def _update(self, update: Update, step: int, number: int) -> None:
        run, program = self.executor.update, update.program
        first, guarded = update.collect_count, update.collect_count + update.guard_count
        segments = {"state": update.state}
        if update.training is not None:
            segments["training"] = update.training
        run(program[:first], segments, update.hyper[step])
        if update.updates is not None and not update.updates[step]:
            return
        run(program[first:guarded], segments, update.hyper[step])
        norm = self.executor.norm(update)
        if not math.isfinite(norm):
            raise norm_diverged(number, norm)
        run(program[guarded:], segments, update.hyper[step])


Trainable = Executor | FunctionSteps
