"""Matrix products: fastnet's linear kernels against PyTorch's and NumPy's BLAS, one thread.

C (M, N) = op(A) · op(B) with K terms: `A·B` is a linear layer's forward, `Aᵀ·B` its weights' gradient,
`A·Bᵀ` its input's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np

from contenders.repeated import Repeated
from fastnet.op import KERNELS

SHAPES = (  # M, N, K
    (8, 16, 16),
    (64, 64, 64),
    (32, 128, 784),
    (64, 256, 256),
    (128, 256, 784),
    (128, 512, 512),
    (256, 1024, 1024),
    (512, 512, 512),
    (1024, 1024, 1024),
    (256, 4096, 4096),
    (2048, 2048, 2048),
    (4096, 4096, 4096),
)
SMALL_ENOUGH_FOR_NUMPY = 1024
FORMS = ("A·B", "Aᵀ·B", "A·Bᵀ")


def name(shape: tuple[int, int, int], form: str) -> str:
    """M×N×K and the form."""
    return f"{'×'.join(map(str, shape))} {form}"


class Product:
    """Calls a function that computes one product."""

    quantum = 1

    def __init__(self, product: Callable[[], Any]) -> None:
        self.product = product

    def run(self, count: int) -> None:
        """`count` times."""
        product = self.product
        for _ in range(count):
            product()


def kernel(shape: tuple[int, int, int], form: str) -> Repeated:
    """The linear kernel that computes it, everything else of the layer absent."""
    m, n, k = shape
    if form == "A·B":
        op, rows, sizes, absent = "linear_forward", m, {"I": k, "O": n}, {"b"}
    elif form == "Aᵀ·B":
        op, rows, sizes, absent = "linear_vjp", k, {"I": m, "O": n}, {"dx", "db", "w"}
    else:
        op, rows, sizes, absent = "linear_vjp", m, {"I": n, "O": k}, {"dw", "db", "x"}
    return Repeated(KERNELS[op], "c", rows, sizes, absent)


def makers(shape: tuple[int, int, int], form: str) -> dict[str, Callable[[], Any]]:
    """All who multiply here."""
    m, n, k = shape
    random = np.random.default_rng(0)
    a = random.standard_normal((k, m) if form == "Aᵀ·B" else (m, k), np.float32)
    b = random.standard_normal((n, k) if form == "A·Bᵀ" else (k, n), np.float32)
    a = a.T if form == "Aᵀ·B" else a
    b = b.T if form == "A·Bᵀ" else b
    c = np.empty((m, n), np.float32)
    found: dict[str, Callable[[], Any]] = {"fastnet": lambda: kernel(shape, form)}
    if importlib.util.find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        operands = [torch.from_numpy(array) for array in (a, b)]
        out = torch.from_numpy(c)
        found["PyTorch"] = lambda: Product(lambda: torch.mm(*operands, out=out))
    if max(shape) <= SMALL_ENOUGH_FOR_NUMPY:
        found["NumPy"] = lambda: Product(lambda: np.matmul(a, b, out=c))
    return found
