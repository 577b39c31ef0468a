"""Compare optimizers over their hyper-parameters: `python -m fastnet.examples.optimizers`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import fastnet as fn
from fastnet.backends.registry import NAMES

RATES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
SHARES, EPSILONS = (0.9, 0.95, 0.99), (1e-2, 1e-4, 1e-6, 1e-8)
COLUMNS: dict[str, Callable[[float], fn.Optimizer]] = {
    "SGD": lambda lr: fn.SGD(lr),
    "momentum 0.9": lambda lr: fn.SGD(lr, momentum=0.9),
    "Adagrad": lambda lr: fn.Adagrad(lr),
}
UNTUNED: dict[str, type[fn.Optimizer]] = {
    "Adam": fn.Adam,
    "YellowFin": fn.YellowFin,
}  # with their defaults


def main() -> None:
    """Print test errors after a few epochs: two tables, and a line for optimizers without tuning.

    The experiment is that of M. D. Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701: a
    784-500-300-10 net of tanh units on MNIST, minibatches of 100, six epochs. The first table has the
    rates of SGD, momentum and Adagrad as its rows, the second has Adadelta's rho and eps. On MNIST the
    first three depend much more on their one number. Without --data the digits stand for MNIST, in
    minibatches of 10.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.examples.optimizers",
        description="Compare SGD, momentum, Adagrad and Adadelta over their hyper-parameters.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--data", metavar="DIR", help="folder of MNIST's four IDX files (not digits)"
    )
    parser.add_argument("--backend", default="auto", choices=("auto", *NAMES))
    parser.add_argument("--epochs", type=int, default=6, help="times through the training rows")
    parser.add_argument("--rows", type=int, help="so many training rows alone")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and order")
    options = parser.parse_args()

    try:
        data = fn.datasets.mnist(options.data) if options.data else fn.datasets.digits()
    except (FileNotFoundError, fn.errors.DataError) as missing:
        parser.exit(2, f"{missing}\n")
    (X, y), test = data
    train = X[: options.rows], y[: options.rows]

    def error(optimizer: fn.Optimizer) -> str:
        return text(test_error(optimizer, train, test, options))

    print(f"test error after {options.epochs} epochs on {len(train[0]):,} rows\n")
    print("lr     ", *(f"{name:>13}" for name in COLUMNS))
    for lr in RATES:
        print(f"{lr:<7g}", *(f"{error(make(lr)):>13}" for make in COLUMNS.values()), flush=True)
    print("\nAdadelta's eps", *(f"{f'rho {rho:g}':>13}" for rho in SHARES))
    for eps in EPSILONS:
        found = (error(fn.Adadelta(rho=rho, eps=eps)) for rho in SHARES)
        print(f"{eps:<14g}", *(f"{one:>13}" for one in found), flush=True)
    print()
    for name, make in UNTUNED.items():
        print(f"{name}, not tuned: {error(make())}", flush=True)


def test_error(optimizer: fn.Optimizer, train: Any, test: Any, options: Any) -> float:
    """The share of test rows that a net gets wrong; 1 if the training has diverged."""
    X, y = train
    layers = (
        fn.Linear(X.shape[1], 500),
        fn.Tanh(),
        fn.Linear(500, 300),
        fn.Tanh(),
        fn.Linear(300, 10),
    )
    model = fn.Sequential(*layers, backend=options.backend, seed=options.seed)
    trainer = fn.Trainer(model, fn.CrossEntropyLoss(), optimizer, seed=options.seed)
    try:
        batch_size = 100 if options.data else 10
        trainer.fit(X, y, epochs=options.epochs, batch_size=batch_size, verbose=0)
    except fn.DivergenceError:
        return 1.0
    return 1.0 - float(trainer.evaluate(*test)["accuracy"])


def text(error: float) -> str:
    """An error in percent."""
    return "diverged" if error == 1.0 else f"{100 * error:.2f}%"


if __name__ == "__main__":
    main()
