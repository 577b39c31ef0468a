"""PyTorch's kernels for each activation, loss and optimizer, as lines that TorchScript repeats.

A line is one or more of PyTorch's kernels, which write where the line says, so that PyTorch too is
spared Python and allocations where it can be. `aten.` stands for torch.ops.aten; x is the input, y the
output, t the targets, dy and dx their gradients. Where PyTorch has no kernel, the line is the formula
that its users write, or what its autograd would run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_ELU = (
    "aten.elu(x, {0}, {1}, 1.0, out=y)",
    "aten.elu_backward(dy, {0}, {1}, 1.0, False, x, grad_input=dx)",
)
_SELU = "1.6732632423543772", "1.0507009873554805"
_CLIP = (
    "aten.hardtanh(x, {0}, {1}, out=y)",
    "aten.hardtanh_backward(dy, x, {0}, {1}, grad_input=dx)",
)
_FLOAT = "6"  # the number of torch.float32


def _with(lines: tuple[str, str], *words: str) -> tuple[str, str]:
    return lines[0].format(*words), lines[1].format(*words)


# The activation, norm or noise as code, of rows of a width: its forward and its backward.
ACTIVATIONS = {
    "ReLU()": ("aten.relu(x, out=y)", "aten.threshold_backward(dy, y, 0, grad_input=dx)"),
    "LeakyReLU()": (
        "aten.leaky_relu(x, 0.01, out=y)",
        "aten.leaky_relu_backward(dy, x, 0.01, False, grad_input=dx)",
    ),
    "PReLU()": (
        "y = aten._prelu_kernel(x, p)",
        "dx, each = aten._prelu_kernel_backward(dy, x, p)\ndp = torch.sum(each)",
    ),
    "ELU()": _with(_ELU, "1.0", "1.0"),
    "SELU()": _with(_ELU, *_SELU),
    "GELU()": ("aten.gelu(x, out=y)", "aten.gelu_backward(dy, x, grad_input=dx)"),
    "GELU(approximate='tanh')": (
        "aten.gelu(x, approximate='tanh', out=y)",
        "aten.gelu_backward(dy, x, approximate='tanh', grad_input=dx)",
    ),
    "SiLU()": ("aten.silu(x, out=y)", "aten.silu_backward(dy, x, grad_input=dx)"),
    "Mish()": ("aten.mish(x, out=y)", "dx = aten.mish_backward(dy, x)"),
    "Softplus()": (
        "aten.softplus(x, 1, 20, out=y)",
        "aten.softplus_backward(dy, x, 1, 20, grad_input=dx)",
    ),
    "Sigmoid()": ("aten.sigmoid(x, out=y)", "aten.sigmoid_backward(dy, y, grad_input=dx)"),
    "Tanh()": ("aten.tanh(x, out=y)", "aten.tanh_backward(dy, y, grad_input=dx)"),
    "ScaledTanh()": (
        "aten.mul(aten.tanh(aten.mul(x, 0.6667)), 1.7159, out=y)",
        "aten.mul(aten.tanh_backward(dy, y), 1.1439, out=dx)",
    ),
    "LinearTanh()": (
        "aten.add(aten.tanh(x), x, alpha=0.1, out=y)",
        "aten.add(aten.tanh_backward(dy, y), dy, alpha=0.1, out=dx)",
    ),
    "Hardtanh()": _with(_CLIP, "-1", "1"),
    "ReLU6()": _with(_CLIP, "0", "6"),
    "Hardsigmoid()": (
        "aten.hardsigmoid(x, out=y)",
        "aten.hardsigmoid_backward(dy, x, grad_input=dx)",
    ),
    "Hardswish()": ("aten.hardswish(x, out=y)", "dx = aten.hardswish_backward(dy, x)"),
    "Softsign()": (
        "aten.div(x, aten.add(aten.abs(x), 1), out=y)",
        "aten.div(dy, aten.square(aten.add(aten.abs(x), 1)), out=dx)",
    ),
    "LogSigmoid()": (
        "y, kept = aten.log_sigmoid_forward(x)",
        "aten.log_sigmoid_backward(dy, x, y, grad_input=dx)",
    ),
    "NoisyReLU()": (
        "aten.relu(aten.addcmul(x, aten.randn_like(x), aten.sqrt(aten.sigmoid(x))), out=y)",
        "e = aten.mul(aten.sub(y, x), aten.sigmoid(aten.neg(x)))\n"
        "aten.threshold_backward(aten.addcmul(dy, dy, e, value=0.5), y, 0, grad_input=dx)",
    ),
    "Softmax()": (
        "aten._softmax(x, 1, False, out=y)",
        f"aten._softmax_backward_data(dy, y, 1, {_FLOAT}, grad_input=dx)",
    ),
    "LogSoftmax()": (
        "aten._log_softmax(x, 1, False, out=y)",
        f"aten._log_softmax_backward_data(dy, y, 1, {_FLOAT}, out=dx)",
    ),
    "LayerNorm(width)": (
        "y, mean, rstd = aten.native_layer_norm(x, [x.size(1)], g, b, 1e-5)",
        "dx, dg, db = aten.native_layer_norm_backward"
        "(dy, x, [x.size(1)], mean, rstd, g, b, [True, True, True])",
    ),
    "RMSNorm(width)": (
        "y, rstd = aten._fused_rms_norm(x, [x.size(1)], g, None)",
        # Its backward on a CPU, as autograd composes it.
        "xr = aten.mul(x, rstd)\ngr = aten.mul(dy, g)\ndg = torch.sum(aten.mul(dy, xr), 0)\n"
        "m = torch.mean(aten.mul(gr, xr), 1, True)\n"
        "aten.mul(aten.sub(gr, aten.mul(xr, m)), rstd, out=dx)",
    ),
    "GaussianNoise(0.1)": (
        "aten.add(x, aten.randn_like(x), alpha=0.1, out=y)",
        "dx.copy_(dy)",
    ),
}

_NLL = (
    "loss, total = aten.nll_loss_forward({0}, c, None, 1, -100)\n"
    "dz = aten.nll_loss_backward(one, {0}, c, None, 1, -100, total)"
)
_PER_ELEMENT = "loss = aten.{0}(x, t{1})\naten.{0}_backward(one, x, t{1}, grad_input=dx)"

# The loss as code: value and gradient. t are real targets, s in (0, 1), c labels; x logits, q in (0, 1)
# and l log-probabilities.
LOSSES = {
    "CrossEntropyLoss()": "l = aten._log_softmax(x, 1, False)\n"
    + _NLL.format("l")
    + f"\naten._log_softmax_backward_data(dz, l, 1, {_FLOAT}, out=dx)",
    "NLLLoss()": _NLL.format("x"),
    "MSELoss()": _PER_ELEMENT.format("mse_loss", ", 1"),
    "HalfMSELoss()": _PER_ELEMENT.format("mse_loss", ", 1"),
    "L1Loss()": "d = aten.sub(x, t)\nloss = aten.mean(aten.abs(d))\naten.mul(aten.sign(d), 0.001, out=dx)",
    "PinballLoss()": "d = aten.sub(x, t)\n"
    "loss = aten.mean(aten.maximum(aten.mul(d, 0.5), aten.mul(d, -0.5)))\n"
    "aten.mul(aten.sign(d), 0.0005, out=dx)",
    "HuberLoss()": "loss = aten.huber_loss(x, t, 1, 1.0)\n"
    "aten.huber_loss_backward(one, x, t, 1, 1.0, grad_input=dx)",
    "SmoothL1Loss()": "loss = aten.smooth_l1_loss(x, t, 1, 1.0)\n"
    "aten.smooth_l1_loss_backward(one, x, t, 1, 1.0, grad_input=dx)",
    "LogCoshLoss()": "d = aten.sub(x, t)\n"
    "loss = aten.mean(aten.sub(aten.add(d, aten.softplus(aten.mul(d, -2))), 0.6931))\n"
    "aten.mul(aten.tanh(d), 0.001, out=dx)",
    "BCEWithLogitsLoss()": "loss = aten.binary_cross_entropy_with_logits(x, s, None, None, 1)\n"
    "aten.mul(aten.sub(aten.sigmoid(x), s), 0.001, out=dx)",
    "BCELoss()": "loss = aten.binary_cross_entropy(q, s, None, 1)\n"
    "aten.binary_cross_entropy_backward(one, q, s, None, 1, grad_input=dx)",
    "PoissonNLLLoss()": "e = aten.exp(x)\nloss = aten.mean(aten.sub(e, aten.mul(s, x)))\n"
    "aten.mul(aten.sub(e, s), 0.001, out=dx)",
    "MultiMarginLoss()": "loss = aten.multi_margin_loss(x, c, 1, 1.0, None, 1)\n"
    "aten.multi_margin_loss_backward(one, x, c, 1, 1.0, None, 1, grad_input=dx)",
    "KLDivLoss()": "loss = aten.mean(aten.sub(aten.xlogy(s, s), aten.mul(s, x)))\n"
    "aten.mul(s, -0.001, out=dx)",
}

# The optimizer as fastnet's code, and PyTorch's; it runs fused where PyTorch has that, else foreach.
OPTIMIZERS = {
    "SGD()": "SGD(lr=1e-3)",
    "SGD(momentum=0.9)": "SGD(lr=1e-3, momentum=0.9)",
    "SGD(momentum=0.9, nesterov=True)": "SGD(lr=1e-3, momentum=0.9, nesterov=True)",
    "Adagrad()": "Adagrad(lr=1e-3)",
    "Adadelta()": "Adadelta(lr=1e-3)",
    "RMSprop()": "RMSprop(lr=1e-3)",
    "RMSprop(centered=True, momentum=0.9)": "RMSprop(lr=1e-3, centered=True, momentum=0.9)",
    "Adam()": "Adam(lr=1e-3)",
    "AdamW()": "AdamW(lr=1e-3)",
    "Adamax()": "Adamax(lr=1e-3)",
    "NAdam()": "NAdam(lr=1e-3)",
    "RAdam()": "RAdam(lr=1e-3)",
    "Rprop()": "Rprop(lr=1e-3)",
}


class Scripted:
    """TorchScript that runs the lines `count` times in one call."""

    quantum = 1

    def __init__(self, lines: str, tensors: dict[str, torch.Tensor]) -> None:
        # All names that are assigned are returned, so that nothing is left out as unused.
        parts = [line.partition(" = ") for line in lines.splitlines()]
        made = [name for names, found, _ in parts if found for name in names.split(", ")]
        source = [
            f"def repeat(count: int, {', '.join(f'{n}: Tensor' for n in tensors)}) -> List[Tensor]:",
            *(f"    {name} = x" for name in made if name not in tensors),
            "    for _ in range(count):",
            *(f"        {line}" for line in lines.splitlines()),
            f"    return [{', '.join(['x', *made])}]",
            "",
        ]
        code = "\n".join(source).replace("aten.", "torch.ops.aten.")
        self.function = torch.jit.CompilationUnit(code).repeat
        self.tensors = tensors

    def run(self, count: int) -> None:
        """`count` times."""
        with torch.no_grad(), torch.jit.optimized_execution(False):
            self.function(count, **self.tensors)


class Stepped:
    """An optimizer's step on one flat tensor, called from Python."""

    quantum = 1

    def __init__(self, code: str, size: int) -> None:
        tensor = torch.nn.Parameter(torch.randn(size))
        tensor.grad = torch.randn(size)
        make: Callable[..., Any] = eval(f"lambda p, **o: torch.optim.{code[:-1]}, params=p, **o)")
        try:
            self.optimizer = make([tensor], fused=True)
        except (TypeError, RuntimeError):
            self.optimizer = make([tensor], foreach=True)

    def run(self, count: int) -> None:
        """`count` steps."""
        step = self.optimizer.step
        for _ in range(count):
            step()


def tensors(rows: int, width: int) -> dict[str, torch.Tensor]:
    """What the lines work on."""
    torch.manual_seed(0)
    x, t, dy = (torch.randn(rows, width) for _ in range(3))
    return {
        "x": x,
        "t": t,
        "dy": dy,
        "y": torch.tanh(x),
        "dx": torch.empty(rows, width),
        "p": torch.full((1,), 0.25),
        "s": torch.rand(rows, width),
        "q": torch.sigmoid(x),
        "c": torch.randint(width, (rows,)),
        "one": torch.tensor(1.0),
        "g": torch.ones(width),
        "b": torch.zeros(width),
        "mean": torch.zeros(rows, 1),
        "rstd": torch.ones(rows, 1),
    }
