"""Train a 784-128-10 net on MNIST: `python -m fastnet.examples.mnist --data DIR`."""

from __future__ import annotations

import argparse

import fastnet as fn


def main() -> None:
    """Train on the IDX files of a folder, print every epoch, end with the test accuracy."""
    parser = argparse.ArgumentParser(description="Train a 784-128-10 net on MNIST.")
    parser.add_argument("--data", default="", help="the folder with the four IDX files")
    parser.add_argument("--backend", default="auto", help="auto, c, numba or reference")
    parser.add_argument("--epochs", type=int, default=5)
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
    optimizer = fn.SGD(lr=0.2)
    trainer = fn.Trainer(model, loss=fn.CrossEntropyLoss(), optimizer=optimizer, seed=options.seed)
    if options.epochs > 1:
        trainer.fit(X, y, epochs=options.epochs - 1, batch_size=32)
        optimizer.lr = 0.02  # a last epoch of small steps averages the noise of the others away
    trainer.fit(X, y, epochs=1, batch_size=32)
    print(f"test accuracy {trainer.evaluate(X_test, y_test)['accuracy']:.4f}")


if __name__ == "__main__":
    main()
