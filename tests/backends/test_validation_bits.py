"""A fit that validation steers has the same bits whatever instruction sets NumPy finds."""

from __future__ import annotations

import child
import numpy as np
import pytest

import fastnet as fn

if reason := fn.backends()["c"].reason:
    pytest.skip(reason, allow_module_level=True)

# What depends on the validation loss: learning rates, the last epoch, the parameters at the end.
FITS = """
import hashlib, json, os
import numpy as np
import fastnet as fn

features = np._core._multiarray_umath.__cpu_features__
off = os.environ.get("NPY_DISABLE_CPU_FEATURES", "").split()
assert not [name for name in off if features[name]]
rng = np.random.default_rng(0)
X = rng.standard_normal((500, 20)).astype(np.float32)
labels, numbers = rng.integers(0, 10, 500), rng.standard_normal((500, 10)).astype(np.float32)
weights = rng.random(500).astype(np.float32)
losses = [
    (fn.CrossEntropyLoss(), labels),
    (fn.CrossEntropyLoss(weight=np.arange(1.0, 11), label_smoothing=0.1), labels),
    (fn.MSELoss(), numbers),
    (fn.HuberLoss(0.5), numbers),
    (fn.BCEWithLogitsLoss(), (numbers > 0).astype(np.float32)),
]
found = []
for loss, y in losses:
    layers = fn.Linear(20, 16), fn.BatchNorm1d(16), fn.Tanh(), fn.Dropout(0.2), fn.Linear(16, 10)
    model = fn.Sequential(*layers, backend="c", seed=1)
    trainer = fn.Trainer(model, loss, fn.Adam(0.02), seed=2)
    steered = [fn.ReduceLROnPlateau(patience=1), fn.EarlyStopping(patience=4)]
    history = trainer.fit(
        X[:300], y[:300], 30, 32, (X[300:], y[300:], weights[300:]), restore_best=True,
        callbacks=steered, verbose=0,
    )
    scores = ("loss", "val_loss", *trainer.metrics)
    records = [[float(record[name]).hex() for name in scores] for record in history.records]
    state = b"".join(value.tobytes() for value in model.state_dict().values())
    found.append([records, hashlib.sha256(state).hexdigest(), len(records)])
print(json.dumps(found))
"""


def dispatched() -> list[str]:
    """The instruction sets that NumPy chooses by the machine."""
    umath = np._core._multiarray_umath
    return [name for name in umath.__cpu_dispatch__ if umath.__cpu_features__[name]]


def test_a_fit_with_validation_is_no_matter_of_instruction_sets():
    names = dispatched()
    if not names:
        pytest.skip("NumPy has nothing to choose from here")
    whole, less = child.run(FITS), child.run(FITS, NPY_DISABLE_CPU_FEATURES=" ".join(names))
    assert whole == less
    assert any(epochs < 30 for *_, epochs in whole)  # early stopping had a say
