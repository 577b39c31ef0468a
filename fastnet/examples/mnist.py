"""Train a 784-128-10 net on MNIST: `python -m fastnet.examples.mnist --data DIR`.

On several processes: `mpiexec -n 4 python -m fastnet.examples.mnist --data DIR --mpi`.
"""

from __future__ import annotations

import argparse
from typing import Any

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
    parser.add_argument(
        "--batch-size", type=int, default=32, help="rows of a minibatch, of all ranks"
    )
    parser.add_argument("--mpi", action="store_true", help="on all ranks of mpiexec (extra mpi)")
    options = parser.parse_args()

    comm = world() if options.mpi else None
    first = comm is None or comm.Get_rank() == 0
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
    if first:
        print(model.summary())
        print(f"backend: {model.backend}" + ("" if comm is None else f", {comm.Get_size()} ranks"))
    trainer = fn.Trainer(
        model,
        loss=fn.CrossEntropyLoss(),
        optimizer=fn.Adam(lr=2e-3),
        seed=options.seed,
        comm=comm,
        deterministic=comm is not None,  # the same net from any number of ranks
    )
    if options.epochs > 1:
        trainer.fit(X, y, epochs=options.epochs - 1, batch_size=options.batch_size)
        trainer.optimizer.lr = 2e-4  # a last epoch of small steps averages the noise away
    trainer.fit(X, y, epochs=min(options.epochs, 1), batch_size=options.batch_size)
    if first:
        print(f"test accuracy {trainer.evaluate(X_test, y_test)['accuracy']:.4f}")


def world() -> Any:
    """All ranks of mpiexec."""
    try:
        from mpi4py import MPI
    except ImportError as error:
        raise fn.errors.MissingExtra(
            f"--mpi needs mpi4py and a library of MPI: pip install 'fastnet-engine[mpi]' mpich ({error})"
        ) from None
    return MPI.COMM_WORLD


if __name__ == "__main__":
    main()
