"""Learning rates: the range test, one-cycle, warm restarts with snapshots, halving at a plateau."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastnet as fn
from fastnet.examples.course.experiment import Data, Experiment, Result, Row
from fastnet.examples.course.picture import STYLES, grid
from fastnet.examples.course.training import fitted, tested

CYCLES, BATCH = 4, 32
ROWS = 10_000


class _Rates(fn.Callback):
    """Keeps the learning rate of each epoch."""

    kept: list[float]

    def on_train_begin(self) -> None:
        """Forget those of an earlier fit."""
        self.kept = []

    def on_epoch_begin(self, epoch: int) -> None:
        """Keep the rate that the epoch has."""
        self.kept.append(float(self.trainer.optimizer.lr))


def net(data: Data, seed: int) -> fn.Sequential:
    """inputs-64-64-10 of ReLU."""
    layers = fn.Linear(data.inputs, 64), fn.ReLU(), fn.Linear(64, 64), fn.ReLU(), fn.Linear(64, 10)
    return fn.Sequential(*layers, seed=seed)


def run(data: Data, seed: int, quick: bool) -> Result:
    """The range test, then each schedule for as many epochs."""
    data, epochs = (data.few(240), CYCLES) if quick else (data.few(ROWS), 5 * CYCLES)
    held = len(data.X) // 6  # which the halving looks at
    validation, data = (data.X[-held:], data.y[-held:]), data.few(len(data.X) - held)
    per_epoch = -(-len(data.X) // BATCH)
    steps = epochs * per_epoch
    trial = fn.Trainer(net(data, seed), fn.CrossEntropyLoss(), fn.SGD(0.1, momentum=0.9), seed=seed)
    tested_rates = trial.find_lr(data.X, data.y, BATCH, min_lr=1e-5, max_lr=10.0)
    top = tested_rates.suggestion or tested_rates.lowest / 10
    cosine = fn.schedules.CosineAnnealingWarmRestarts(top, T_0=steps // CYCLES)
    cycle = fn.schedules.OneCycleLR(2 * top, total_steps=steps)
    optimizers = {
        "constant": fn.SGD(top, momentum=0.9),
        "one-cycle": fn.SGD(cycle, momentum=0.9),
        "warm restarts": fn.SGD(cosine, momentum=0.9),
        "halved at plateaus": fn.SGD(top, momentum=0.9),
    }
    snapshots = fn.Snapshots(epochs // CYCLES)
    plateau = fn.ReduceLROnPlateau(factor=0.5, patience=1)
    kept = _Rates()
    callbacks: list[list[fn.Callback]] = [[], [], [snapshots], [plateau, kept]]
    models = [net(data, seed) for _ in optimizers]
    options = {"epochs": epochs, "batch_size": BATCH, "callbacks": callbacks}
    histories = fitted(
        models, data.X, data.y, list(optimizers.values()), seed, validation=validation, **options
    )
    found = dict(zip(optimizers, tested(models, data), strict=True))
    ensemble = fn.Ensemble(snapshots.models, "probabilities").predict(data.X_test)
    joined = 100 * float((ensemble.argmax(axis=1) == data.y_test).mean())
    parts = tested(snapshots.models, data)
    huang = "G. Huang et al., ICLR 2017: lower errors than single nets"
    why = "" if data.mnist else f"a test row is {100 / len(data.y_test):.2f} %"
    rows = [
        Row(
            "rate of the range test's suggestion",
            top,
            digits=4,
            source="L. N. Smith, WACV 2017, section 3.3",
        ),
        Row(
            "rate with the least loss",
            tested_rates.lowest,
            digits=4,
            source="the range test; too high already",
        ),
        *(Row(f"test accuracy, {name}", value, unit=" %") for name, value in found.items()),
        *(Row(f"  snapshot {i + 1}", value, unit=" %") for i, value in enumerate(parts)),
        Row(
            f"test accuracy, ensemble of {len(parts)} snapshots",
            joined,
            unit=" %",
            source=huang,
            why=why,
        ),
        Row(
            "  above the mean of its members", joined - float(parts.mean()), unit=" %", source=huang
        ),
    ]
    figures = {
        "suggestion": top,
        "ensemble": joined,
        "ensemble above its members": joined - float(parts.mean()),
    }
    figures |= {name: float(value) for name, value in found.items()}
    curves = {name: h.history["val_loss"] for name, h in zip(optimizers, histories, strict=True)}
    each = np.arange(steps)
    rates = {"one-cycle": cycle(each), "warm restarts": cosine(each)}
    drawn = {
        "test": (tested_rates.rates, tested_rates.losses, tested_rates.smoothed, top),
        "curves": curves,
    }
    rates["halved at plateaus"] = np.repeat(kept.kept, per_epoch)
    return Result(rows, drawn | {"rates": rates, "per epoch": per_epoch}, figures)


def draw(figure: Any, result: Result) -> None:
    """The range test, the rates, and the losses on rows held back."""
    axes = figure.subplots(1, 3)
    rates, losses, smoothed, top = result.drawn["test"]
    axes[0].semilogx(rates, losses, color="#85909b", linewidth=0.7)
    axes[0].semilogx(rates, smoothed)
    axes[0].axvline(top, linestyle="--", color="#dd8a2e")
    axes[0].set(
        title="range test: loss", xlabel="learning rate", ylim=(0, 1.3 * max(smoothed[:20]))
    )
    colors = {}
    for (name, curve), style in zip(result.drawn["curves"].items(), STYLES, strict=False):
        (line,) = axes[2].plot(range(1, len(curve) + 1), curve, linestyle=style, label=name)
        colors[name] = line.get_color(), style
    for name, values in result.drawn["rates"].items():
        x = np.arange(len(values)) / result.drawn["per epoch"]
        axes[1].plot(x, values, color=colors[name][0], linestyle=colors[name][1], label=name)
    axes[1].set(title="learning rate", xlabel="epoch")
    axes[2].set(title="loss on rows held back", xlabel="epoch")
    axes[2].legend(fontsize=7)
    for ax in axes:
        grid(ax)


EXPERIMENT = Experiment(
    "rates",
    "Learning rates that find themselves, fall, and rise again",
    100,
    "A range test suggests a rate (dashed). Nets with two layers of 64 ReLUs then learn with it, "
    "with one cycle to twice of it, with warm restarts whose four minima are kept as an ensemble, "
    "and with halving where the loss no longer falls.",
    run,
    draw,
    (9.6, 2.9),
    bands={
        "suggestion": (0.0532, 0.151),
        "ensemble": (95.6, 98.48),
        "ensemble above its members": (-0.66, 1.98),
        "constant": (90.9, 100),
        "one-cycle": (85.2, 100),
        "warm restarts": (95.6, 98.48),
        "halved at plateaus": (96.1, 98.34),
    },
)
