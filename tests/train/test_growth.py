"""A process that trains on and on does not grow, but for its history."""

from __future__ import annotations

import sys
import textwrap

import child
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

MOST = 2.0  # MiB

# Each way runs once before it is measured, because buffers grow to the size of a chunk of steps. That size
# depends on how fast the machine is at the moment: a leak is what grows each time.
CODE = """
    import gc, json, sys
    import numpy as np, fastnet as fn
    kind, way, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    x = np.random.default_rng(0).normal(size=(64, 4)).astype("f")
    y, xb, yb = np.arange(64) % 2, x[:4], np.arange(4) % 2

    def made(**options):
        layers = fn.Linear(4, 8), fn.ReLU(), fn.Dropout(0.1), fn.Linear(8, 2)
        model = fn.Sequential(*layers, backend=kind, seed=0)
        return fn.Trainer(model, fn.CrossEntropyLoss(), fn.Adam(1e-3), seed=0, **options)

    trainer = made(averaging=fn.EMA(0.9))
    model = trainer.model

    def steps(n):
        trainer.fit(x, y, epochs=n // 16, batch_size=4, verbose=0)

    def single_steps(n):
        for _ in range(n):
            trainer.train_on_batch(xb, yb)

    def loop(n):
        for _ in range(n):
            model.value_and_grad(trainer.loss, xb, yb)
            trainer.optimizer.step(model)
            model.predict(xb)

    def fits(n):
        stop = [fn.EarlyStopping(patience=9, restore_best_weights=True)]
        for _ in range(n):
            trainer.fit(x, y, batch_size=16, validation_data=(x, y), callbacks=stop, verbose=0)

    def fits_of_new_nets(n):
        for _ in range(n):
            made().fit(x, y, batch_size=16, verbose=0)

    def many_nets(n):
        for _ in range(n // 20):
            fn.fit_many([made() for _ in range(20)], x, y, batch_size=16)

    def refused(n):
        for _ in range(n):
            try:
                trainer.fit(x, yb, verbose=0)
            except fn.FastnetError:
                pass

    def list_of_minibatches(n):
        trainer.fit([(xb, yb)] * (n // 10), epochs=10, accumulation_steps=2, verbose=0)

    def generator(n):
        trainer.fit(lambda: ((xb, yb) for _ in range(n // 10)), epochs=10, verbose=0)

    def used():
        trainer.history = fn.History()
        gc.collect()
        with open("/proc/self/smaps_rollup") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))

    def kept_nets(n):
        nets.clear()
        nets.extend(made() for _ in range(n))
        for one in nets:
            one.fit(x, y, batch_size=16, verbose=0)

    nets = []
    run = globals()[way]
    seen = []
    for _ in range(3):
        run(count)
        seen.append(used() / 1024)
    print(json.dumps(min(seen[1] - seen[0], seen[2] - seen[1])))
"""

# How often: on backend c, and on others.
WAYS = {
    "steps": (10**6, 1000),
    "single_steps": (10**5, 1000),
    "loop": (50_000, 600),
    "fits": (1000, 100),
    "fits_of_new_nets": (200, 50),
    "many_nets": (200, 40),
    "refused": (2000, 1000),
    "list_of_minibatches": (20_000, 600),
    "generator": (5000, 500),
}


def growth(backend, way, count):
    return child.run(textwrap.dedent(CODE), backend, way, count)


@pytest.mark.parametrize("way", WAYS)
def test_training_on_and_on_takes_no_more_memory(backend, way):
    assert growth(backend, way, WAYS[way][backend != "c"]) < MOST


def test_nets_that_are_alive_at_once_take_the_memory_of_those_before_them(backend):
    nets = 200  # of which each would touch 1 MiB if its scratch memory were zeroed
    assert growth(backend, "kept_nets", nets) < nets / 20


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "count"),
    [
        ("steps", 10**6),
        ("single_steps", 10**6),
        ("fits", 10_000),
        ("fits_of_new_nets", 3000),
        ("many_nets", 3000),
        ("list_of_minibatches", 300_000),
        ("generator", 100_000),
    ],
)
def test_a_million_steps_and_ten_thousand_fits_take_no_more_memory(way, count):
    assert growth("c", way, count) < MOST
