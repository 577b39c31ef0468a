"""What two versions of fastnet are compared by: the same programs of users, by public names alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import fastnet as fn
from contenders.fits import FITS, ONE_BY_ONE, FastnetFit, Fit
from contenders.loops import FastnetLoop, FiveCalls
from contenders.predictors import Predictor as Repeat
from contenders.workloads import LR, WORKLOADS


def state_dict(name: str) -> Repeat:
    """`load_state_dict(state_dict())`."""
    model = WORKLOADS[name].model("auto")
    return Repeat(lambda: model.load_state_dict(model.state_dict()))


PROGRAMS: dict[str, Callable[[], Any]] = {
    "fit xor, 4 rows": lambda: FastnetFit(FITS["xor"]),
    "fit xor, 4 rows, a callback that does nothing": lambda: FastnetFit(
        FITS["xor"], callbacks=[fn.Callback()]
    ),
    "fit xor, 64 minibatches": lambda: FastnetFit(Fit(WORKLOADS["xor"], 100)),
    "fit housing, SGD, batch 1": lambda: FastnetFit(ONE_BY_ONE, optimizer=fn.SGD(lr=LR)),
    "xor, value_and_grad and step": lambda: FastnetLoop(WORKLOADS["xor"]),
    "xor, five calls": lambda: FiveCalls(WORKLOADS["xor"]),
    **{f"state dict of {name}": partial(state_dict, name) for name in ("xor", "housing", "mnist")},
}
