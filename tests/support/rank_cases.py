"""Fits that several ranks make: of test_across on threads, of cases.py under mpiexec."""

import numpy as np

import fastnet as fn

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(131, 10)).astype(np.float32), rng.integers(0, 3, 131)
WEIGHTS = rng.uniform(0.1, 2.0, 131)
DTYPE = {"now": "float32"}


def net(*more, backend="c"):
    layers = fn.Linear(10, 24), *more, fn.ReLU(), fn.Linear(24, 3)
    return fn.Sequential(*layers, seed=0, dtype=DTYPE["now"], backend=backend)


CASES = {
    "sgd": {"optimizer": lambda: fn.SGD(0.1, momentum=0.9)},
    "adam": {"optimizer": lambda: fn.Adam(1e-2)},
    "schedule-free": {"optimizer": lambda: fn.ScheduleFreeAdamW(1e-2)},
    "dropout": {"model": lambda: net(fn.Dropout(0.3))},
    "accumulation": {"fit": {"accumulation_steps": 3}},
    "clipping": {"trainer": {"clip_norm": 0.5, "clip_value": 0.1}},
    "weights": {"fit": {"sample_weight": WEIGHTS}},
    "averages": {"trainer": {"averaging": fn.EMA(0.9)}},
    "validation": {"fit": {"validation_data": (X[:40], Y[:40]), "restore_best": True}},
    "validation of outputs": {
        "trainer": {"metrics": ["accuracy", "log_loss"]},
        "fit": {"validation_data": (X, Y, WEIGHTS)},
    },
    "validation of all rows at once": {
        "model": lambda: net(fn.BatchNorm1d(24, track_running_stats=False)),
        "fit": {"validation_data": (X[:40], Y[:40])},
    },
    "split": {"fit": {"validation_split": 0.2, "class_weight": "balanced"}},
    "batchnorm": {"model": lambda: net(fn.BatchNorm1d(24), fn.Dropout(0.2))},
    "two batchnorms": {
        "model": lambda: net(
            fn.BatchNorm1d(24, momentum=None), fn.Tanh(), fn.BatchNorm1d(24, affine=False)
        ),
        "trainer": {"metrics": ["accuracy", "log_loss"]},
    },
    "sum": {"loss": lambda: fn.CrossEntropyLoss(reduction="sum"), "fit": {"batch_size": 17}},
}


def fitted(comm, case, *, deterministic=False, epochs=3, **more):
    model = case.get("model", net)()
    trainer = fn.Trainer(
        model,
        case.get("loss", fn.CrossEntropyLoss)(),
        case.get("optimizer", lambda: fn.Adam(1e-2))(),
        seed=1,
        comm=comm,
        deterministic=deterministic,
        sync_batchnorm=None if comm is None else True,
        **case.get("trainer", {}),
    )
    given = {"batch_size": 32, "verbose": 0, "epochs": epochs, **case.get("fit", {}), **more}
    history = trainer.fit(X, Y, **given).history
    # The log-loss of training data is a mean over the ranks.
    return model, {n: v for n, v in history.items() if "second" not in n and n != "log_loss"}
