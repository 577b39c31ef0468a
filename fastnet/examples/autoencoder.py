"""Greedy pretraining of a 784-512-256-64 auto-encoder: `python -m fastnet.examples.autoencoder --data DIR`.

Each layer first learns to reconstruct its input alone, on the codes of the layers below (Y. Bengio et al.,
"Greedy layer-wise training of deep networks", NIPS 2006). Then all of them are trained together, mirrored
(G. E. Hinton, R. R. Salakhutdinov, "Reducing the dimensionality of data with neural networks", Science
313, 2006; there the layers are restricted Boltzmann machines). The same net without pretraining stands
beside it, trained for as long as both stages together: an epoch of every layer alone has the products of an
epoch of the whole net.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.backends.registry import NAMES

SIZES = (784, 512, 256, 64)


def coder(
    sizes: tuple[int, ...], backend: str, seed: int, *, linear_code: bool = True
) -> fn.Sequential:
    """An encoder of sigmoid units, whose code is linear unless it says otherwise, and its mirror image."""
    layers: list[Any] = []
    for a, b in pairwise((*sizes, *sizes[-2::-1])):
        layers += [fn.Linear(a, b, weight_init=fn.init.GlorotUniform()), fn.Sigmoid()]
    if linear_code:
        layers[2 * len(sizes) - 3] = fn.Identity()
    return fn.Sequential(*layers, backend=backend, seed=seed)


def train(model: fn.Sequential, X: Any, epochs: int, seed: int) -> None:
    """Train to reconstruct X."""
    trainer = fn.Trainer(model, fn.MSELoss(), fn.Adam(1e-3), seed=seed)
    trainer.fit(X, X, epochs=epochs, batch_size=100, verbose=0)


def codes(model: fn.Sequential, X: Any) -> Any:
    """The outputs of the encoder, which is the first half of the layers."""
    half = copy.deepcopy(model[: len(model) // 2])
    return fn.Sequential(*half, backend=model.backend).predict(X)


def pretrained(
    X: Any,
    epochs: int,
    backend: str,
    seed: int,
    sizes: tuple[int, ...] = SIZES,
    say: Callable[[str], None] = print,
) -> fn.Sequential:
    """The deep auto-encoder whose layers have been trained one after the other."""
    deep = coder(sizes, backend, seed)
    state, depth, inputs = deep.state_dict(), len(sizes) - 1, X
    for level, pair in enumerate(pairwise(sizes)):
        shallow = coder(pair, backend, seed + level, linear_code=level == depth - 1)
        train(shallow, inputs, epochs, seed)
        found = shallow.state_dict()
        for part in ("weight", "bias"):
            state[f"{2 * level}.{part}"] = found[f"0.{part}"]
            state[f"{2 * (2 * depth - 1 - level)}.{part}"] = found[f"2.{part}"]
        error = np.mean((shallow.predict(inputs) - inputs) ** 2)
        say(f"layer {level + 1}: reconstruction error {error:.5f} of its own input")
        inputs = codes(shallow, inputs)
    deep.load_state_dict(state)
    return deep


def scored(model: fn.Sequential, train_rows: Any, test_rows: Any, seed: int) -> tuple[float, float]:
    """The reconstruction error on the test rows, and the accuracy of a linear classifier on codes."""
    (X, y), (X_test, y_test) = train_rows, test_rows
    error = float(np.mean((model.predict(X_test) - X_test) ** 2))
    z, z_test = codes(model, X), codes(model, X_test)
    scaler = fn.preprocess.StandardScaler().fit(z)
    probe = fn.Sequential(scaler, fn.Linear(z.shape[1], 10), backend=model.backend, seed=seed)
    trainer = fn.Trainer(probe, fn.CrossEntropyLoss(), fn.Adam(1e-2), seed=seed)
    trainer.fit(z, y, epochs=20, batch_size=100, verbose=0)
    return error, float(trainer.evaluate(z_test, y_test)["accuracy"])


def report(name: str, model: fn.Sequential, train_rows: Any, test_rows: Any, seed: int) -> None:
    """Print what a model is worth."""
    error, accuracy = scored(model, train_rows, test_rows, seed)
    print(f"{name}: test reconstruction error {error:.5f}, accuracy of codes {accuracy:.4f}")


def main() -> None:
    """Pretrain, train together, and compare with a net that was only trained together."""
    parser = argparse.ArgumentParser(
        prog="python -m fastnet.examples.autoencoder",
        description="Greedy pretraining of a 784-512-256-64 auto-encoder on MNIST.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--data", metavar="DIR", default="", help="folder of the four IDX files")
    parser.add_argument("--backend", default="auto", choices=("auto", *NAMES))
    parser.add_argument("--rows", type=int, default=10000, help="training rows")
    parser.add_argument("--pretraining", type=int, default=10, help="epochs for each layer")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of all layers together")
    parser.add_argument("--seed", type=int, default=0, help="of initialisation and order")
    options = parser.parse_args()
    if min(options.rows, options.pretraining, options.epochs) < 1:
        parser.error("--rows, --pretraining and --epochs: expected integers of at least 1")
    try:
        (X, y), test_rows = fn.datasets.mnist(options.data or "--data DIR")
    except (FileNotFoundError, fn.errors.DataError) as error:
        parser.exit(2, f"{error}\n")
    X, y = X[: options.rows], y[: options.rows]
    backend, seed = options.backend, options.seed

    greedy = pretrained(X, options.pretraining, backend, seed)
    report("pretrained, not yet together", greedy, (X, y), test_rows, seed)
    train(greedy, X, options.epochs, seed)
    report(f"pretrained, then {options.epochs} epochs", greedy, (X, y), test_rows, seed)
    plain = coder(SIZES, backend, seed)
    train(plain, X, options.epochs, seed)
    report(f"{options.epochs} epochs alone", plain, (X, y), test_rows, seed)
    train(plain, X, options.pretraining, seed + 1)
    both = options.epochs + options.pretraining
    report(f"{both} epochs alone", plain, (X, y), test_rows, seed)


if __name__ == "__main__":
    main()
