"""What is printed, on terminals whose encoding has few characters."""

from __future__ import annotations

import re
import subprocess
import sys

import child
import pytest

ENCODINGS = ["ascii", "cp1252", "utf-8"]

CODE = r"""
import numpy as np
import fastnet as fn

X, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
layers = fn.Linear(3, 4), fn.BatchNorm1d(4), fn.PReLU(), fn.Dropout(0.2), fn.Linear(4, 2)
model = fn.Sequential(*layers, seed=0, backend="reference")
inner = fn.Sequential(fn.Sequential(fn.ReLU()), fn.Dropout(0.3), backend="reference")
loss = fn.CrossEntropyLoss()
trainer = fn.Trainer(model, loss, metrics={"d\u00e9j\u00e0 \u03bc": lambda y, output: 1.0}, seed=0)
for shown in (model, inner, layers[1], loss, trainer, trainer.optimizer, fn.EMA(0.9)):
    print(shown, repr(shown))
print(model.summary(), repr(inner.summary()))
trainer.fit(X, y, epochs=2, validation_data=(X, y), verbose=1)
print(trainer.find_lr(X, y, batch_size=8, steps=12), fn.backends(), fn.schedules.StepLR(0.1, 2))
for check in (fn.check.gradients, fn.check.initial_loss, fn.check.overfit):
    print(check(model, loss, X, y))
print(fn.EarlyStopping(), fn.Record(), fn.init.KaimingUniform(), fn.FunctionLoss(lambda y, t: (0.0, y)))
print(trainer.fit_full_batch(X, y, method="gradient-descent", max_iter=2))
"""


def printed(command, encoding):
    """What a process prints whose output has this encoding."""
    done = subprocess.run(
        command,
        env=child.environment(PYTHONIOENCODING=encoding, PYTHONUTF8="0"),
        capture_output=True,
        encoding=encoding,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_all_that_is_printed_has_a_plain_form(encoding):
    shown = printed(child.command(CODE), encoding)
    name = {
        "ascii": "d\\xe9j\\xe0 \\u03bc",
        "cp1252": "d\u00e9j\u00e0 \\u03bc",
        "utf-8": "d\u00e9j\u00e0 \u03bc",
    }[encoding]
    assert f"  {name} 1.0000  " in shown  # a metric's, as it can be shown
    rule = {"utf-8": "\N{BOX DRAWINGS LIGHT HORIZONTAL}"}.get(encoding, "-")
    assert len(re.findall(f"^{rule}{{30,}}$", shown, re.MULTILINE)) == 4  # of two summaries


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("options", [["--help"], ["--epochs", "1"]], ids=["help", "run"])
def test_the_example_runs_there(encoding, options):
    shown = printed([sys.executable, "-m", "fastnet.examples.digits", *options], encoding)
    assert re.search("test accuracy|embedded 8x8 digits", shown)
