"""Train a 784-128-10 net on MNIST: `python -m fastnet.examples.mnist --data DIR`."""

from __future__ import annotations

import argparse

import fastnet as fn
from fastnet.backends.registry import NAMES


def main() -> None:
    """Train on the IDX files of a folder, print every epoch, end with the test accuracy.

    The learning rates were chosen with 5,000 of the training rows; only the last line uses the test rows.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.examples.mnist",
        description="Train a 784-128-10 net on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", metavar="DIR", default="", help="folder of the four IDX files")
    parser.add_argument("--backend", default="auto", choices=("auto", *NAMES))
    parser.add_argument("--epochs", type=int, default=5, help="times through the training rows")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and order")
    options = parser.parse_args()

    try:
        (X, y), (X_test, y_test) = fn.datasets.mnist(options.data or "--data DIR")
    except (FileNotFoundError, fn.errors.DataError) as error:
        parser.exit(2, f"{error}\n")
    model = fn.Sequential(
        fn.Linear(784, 128),
        fn.ReLU(),
        fn.Linear(128, 10),
        backend=options.backend,
        seed=options.seed,
    )
    print(model.summary())
    print(f"backend: {model.backend}")
    trainer = fn.Trainer(
        model, loss=fn.CrossEntropyLoss(), optimizer=fn.Adam(lr=2e-3), seed=options.seed
    )
    if options.epochs > 1:
        trainer.fit(X, y, epochs=options.epochs - 1, batch_size=32)
        trainer.optimizer.lr = 2e-4  # a last epoch of small steps averages the noise away
    trainer.fit(X, y, epochs=min(options.epochs, 1), batch_size=32)
    print(f"test accuracy {trainer.evaluate(X_test, y_test)['accuracy']:.4f}")


if __name__ == "__main__":
    main()
