"""Train on the embedded 8x8 digits: `python -m fastnet.examples.digits`."""

from __future__ import annotations

import argparse

import fastnet as fn
from fastnet.backends.registry import NAMES


def main() -> None:
    """Train with batchnorm and dropout, print every epoch, end with the test accuracy.

    Cross-validation within the training rows chose the net and the number of epochs; only the last line
    uses the test rows.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.examples.digits",
        description="Train on the embedded 8x8 digits.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--backend", default="auto", choices=("auto", *NAMES))
    parser.add_argument("--epochs", type=int, default=20, help="times through the training rows")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation, order and dropout")
    options = parser.parse_args()

    (X, y), (X_test, y_test) = fn.datasets.digits()
    model = fn.Sequential(
        fn.Linear(64, 256),
        fn.BatchNorm1d(256),
        fn.ReLU(),
        fn.Dropout(0.2),
        fn.Linear(256, 10),
        backend=options.backend,
        seed=options.seed,
    )
    print(model.summary())
    print(f"backend: {model.backend}")
    trainer = fn.Trainer(
        model, loss=fn.CrossEntropyLoss(), optimizer=fn.Adam(lr=1e-3), seed=options.seed
    )
    trainer.fit(X, y, epochs=options.epochs, batch_size=32)
    print(f"test accuracy {trainer.evaluate(X_test, y_test)['accuracy']:.4f}")


if __name__ == "__main__":
    main()
