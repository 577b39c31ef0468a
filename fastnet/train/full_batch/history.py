"""The history of a full-batch fit."""

from __future__ import annotations

from typing import Any

from fastnet.train.history import History


class FullBatchHistory(History):
    """The records of a full-batch fit, one for each iteration, and how the fit ended.

    records: one dict for each accepted iterate, beginning with the start: "iteration" (from 0), "loss"
        (with the weight decay), "grad_norm" (largest absolute component of the gradient), "evaluations"
        of loss and gradient so far, "seconds" since the start. Some methods add numbers of their own, see
        `Trainer.fit_full_batch`.
    result: SciPy's OptimizeResult, with success, message, fun, nit, nfev and x, the parameters as one
        float64 vector in the model's order. Methods that are not SciPy's give a namespace with these names.
    """

    result: Any

    def __init__(self, records: Any = (), result: Any = None) -> None:
        super().__init__(records)
        self.result = result

    def __repr__(self) -> str:
        last = f", last {self.records[-1]}" if self.records else ""
        return f"<FullBatchHistory of {len(self)} iterates{last}>"
