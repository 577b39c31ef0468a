"""The validation loss, on which stopping and rates depend, has the same bits on every machine."""

from __future__ import annotations

import child
import numpy as np
import pytest

import fastnet as fn

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

SCORES = """
import json
import numpy as np
import fastnet as fn

rng = np.random.default_rng(0)
X, y = rng.standard_normal((500, 20)).astype(np.float32), rng.integers(0, 10, 500)
losses = []
for seed in range(6):
    model = fn.Sequential(fn.Linear(20, 10), backend="c", seed=seed)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), seed=seed)
    record = trainer.fit(X, y, validation_data=(X, y), verbose=0).records[0]
    losses.append([record["loss"].hex(), record["val_loss"].hex()])
print(json.dumps(losses))
"""


def lesser() -> str:
    """The instruction sets that NumPy chooses by the machine, to be left out."""
    umath = np._core._multiarray_umath
    return " ".join(name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name])


@pytest.mark.xfail(
    strict=False,
    reason="NumPy computes the validation loss; it is to be the last instruction of a plan",
)
def test_the_validation_loss_is_no_matter_of_instruction_sets():
    whole, less = child.run(SCORES), child.run(SCORES, NPY_DISABLE_CPU_FEATURES=lesser())
    assert [loss for loss, _ in whole] == [loss for loss, _ in less]
    assert [val for _, val in whole] == [val for _, val in less]
