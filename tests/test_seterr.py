"""What the caller has NumPy raise changes nothing here: results are IEEE's."""

import copy

import numpy as np
import pytest

import fastnet as fn

RNG = np.random.default_rng(0)
X = RNG.standard_normal((70, 3)).astype(np.float32)
TINY, LARGE, LABELS = X * np.float32(1e-20), 100 * np.tile(X, (1, 3))[:, :8], np.arange(70) % 3
DY = np.full((70, 8), 1e-30, np.float32)

LAYERS = [
    *(fn.ReLU(), fn.Tanh(), fn.Sigmoid(), fn.ELU(), fn.GELU(), fn.SELU(), fn.Softplus(), fn.SiLU()),
    *(fn.Mish(), fn.PReLU(), fn.LogSoftmax(), fn.Softmax(), fn.Dropout(0.5), fn.BatchNorm1d(8)),
]
LOSSES = [
    (fn.CrossEntropyLoss(label_smoothing=0.1), LABELS),
    (fn.CrossEntropyLoss(weight=[1e-30, 1.0, 1.0]), LABELS),
    (fn.BCEWithLogitsLoss(), np.full((70, 3), 0.5)),
    (fn.KLDivLoss(), np.full((70, 3), 1e-30)),
    (fn.RBFLoss(), np.full((70, 3), 30.0)),
    (fn.LogCoshLoss(), np.full((70, 3), 300.0)),
    (fn.MultiMarginLoss(), LABELS),
]
SCHEDULES = fn.schedules
OPTIMIZERS = [
    *(fn.NAdam(), fn.RAdam(), fn.Adamax(), fn.Lion(), fn.Adagrad(), fn.Adadelta()),
    *(fn.LearnedOptimizer(), fn.Rprop(), fn.Muon(), fn.ScheduleFreeSGD(), fn.ScheduleFreeAdamW()),
    *(fn.YellowFin(), fn.YellowFin(closed_loop=True), fn.SGDHD(0.01, 0.9), fn.AdamHD()),
    fn.Adam(SCHEDULES.ExponentialLR(0.1, 0.01)),
    fn.AdamW(SCHEDULES.OneCycleLR(0.1, total_steps=400)),
    fn.RMSprop(centered=True, momentum=0.9),
    fn.SGD(0.01, momentum=1e-10, nesterov=True, weight_decay=1e-30),
    fn.SGD(0.01, max_norm=0.1, l1=1e-30),
]


def name_of(value):
    return type(value[0] if isinstance(value, tuple) else value).__name__


def same_bits(call):
    results = []
    for how in ("ignore", "raise"):
        with np.errstate(all=how):
            results.append([np.asarray(v).tobytes() for v in call()])
    assert results[0] == results[1]


@pytest.mark.parametrize("layer", LAYERS, ids=name_of)
def test_layers(backend, layer):
    def alone():
        one = copy.deepcopy(layer)
        one.reset_parameters(0)
        return one.forward(LARGE), one.backward(DY)

    def in_a_model():
        layers = fn.Linear(3, 8), copy.deepcopy(layer), fn.Linear(8, 3)
        model = fn.Sequential(*layers, backend=backend, seed=1)
        trainer = fn.Trainer(model, fn.MSELoss(), averaging=fn.EMA(0.9), clip_norm=1e-30, seed=1)
        trainer.fit(X, TINY, validation_data=(X, X), epochs=2, verbose=0)
        return model.forward(X), model.backward(DY[:, :3]), model.predict(X)

    same_bits(alone)
    same_bits(in_a_model)


@pytest.mark.parametrize("case", LOSSES, ids=name_of)
def test_losses(backend, case):
    loss, y = case

    def call():
        model = fn.Sequential(fn.Linear(3, 3), backend=backend, seed=1)
        trainer = fn.Trainer(model, loss, fn.SGD(1e-3), seed=1)
        trainer.fit(X, y, verbose=0, sample_weight=np.full(70, 1e-30))
        value = trainer.evaluate(X, y)["loss"], loss.forward(LARGE[:, :3], y)
        return *value, loss.backward(), model.predict(X)

    same_bits(call)


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=name_of)
def test_optimizers(optimizer):
    def call():
        model = fn.Sequential(fn.Linear(3, 3), seed=1)
        trainer = fn.Trainer(model, fn.MSELoss(), copy.deepcopy(optimizer), seed=1)
        trainer.fit(X, TINY, epochs=100, batch_size=35, verbose=0)
        return (model.predict(X),)

    same_bits(call)


def test_what_a_trainer_has_besides():
    def call():
        model = fn.Sequential(fn.Linear(3, 3), fn.BatchNorm1d(3), seed=1)
        trainer = fn.Trainer(model, fn.MSELoss(), fn.SGD(0.1), averaging=fn.SWA(1), seed=1)
        rates = trainer.find_lr(X, X, steps=60, max_lr=1e10).losses
        trainer.fit(X, X, verbose=0)
        trainer.fit_full_batch(X, X, max_iter=5)
        norm = fn.clip_grad_norm_(model, 1e-30)
        return rates, norm, model.predict(X), trainer.averaged_model(X).predict(X)

    same_bits(call)
