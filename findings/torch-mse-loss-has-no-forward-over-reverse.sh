#!/usr/bin/env bash
# torch 2.13.0: a Hessian-vector product of mse_loss by torch.func raises "ZeroTensors are immutable".
#
# jvp(grad(f), (x,), (v,)) is the Hessian-vector product of PyTorch's own documentation. With mse_loss and its
# default reduction, "mean", it raises, and so does jacfwd(grad(f)); the message names neither the loss nor a way
# out. With reduction="sum", with the squares written out, and by torch.func.hessian or vjp(grad(f)) it works.
# PyTorch knows: https://github.com/pytorch/pytorch/issues/123996.
#
# Prints what each of them gives, and fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "torch==2.13.0" "numpy>=2" 2> /dev/null
"$work/venv/bin/python" - <<'PY'
import torch
from torch.func import grad, hessian, jacfwd, jvp, vjp
from torch.nn.functional import mse_loss

assert torch.__version__.startswith("2.13.0"), torch.__version__
x, t = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0.5, 0.5, 0.5])
v = torch.tensor([1.0, 0.0, -1.0])


def mean(y):
    return mse_loss(y, t)


def total(y):
    return mse_loss(y, t, reduction="sum")


def squares(y):
    return ((y - t) ** 2).mean()


ways = {
    "jvp(grad), mean": lambda: jvp(grad(mean), (x,), (v,))[1],
    "jacfwd(grad), mean": lambda: jacfwd(grad(mean))(x) @ v,
    "hessian, mean": lambda: hessian(mean)(x) @ v,
    "vjp(grad), mean": lambda: vjp(grad(mean), x)[1](v)[0],
    "jvp(grad), sum / 3": lambda: jvp(grad(total), (x,), (v,))[1] / 3,
    "jvp(grad), squares": lambda: jvp(grad(squares), (x,), (v,))[1],
}
refused = []
for name, way in ways.items():
    try:
        product = way()
    except RuntimeError as error:
        print(f"{name}: {type(error).__name__}: {error}")
        assert "ZeroTensors are immutable" in str(error), error
        refused.append(name)
    else:
        print(f"{name}: {[round(p, 4) for p in product.tolist()]}")
        torch.testing.assert_close(product, 2 / 3 * v)
assert refused == ["jvp(grad), mean", "jacfwd(grad), mean"], "this has changed"
PY
