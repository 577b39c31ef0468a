"""Second derivatives of elementwise ops and losses, derived from the formulas of their first.

For dx = g(dy, x) the op `curve_of` has the kernel of dẋ = ∂g/∂dy·dẏ + ∂g/∂x·ẋ. A name with "t" before it is
the tangent of the tensor with that name.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from fastnet.formulas.derive import tangent_of
from fastnet.formulas.language import RowSlope
from fastnet.late import load_ops
from fastnet.op import KERNELS, Kernel, Op


def tangent_name(name: str) -> str:
    """The name of a tensor's tangent among the arguments of a curve."""
    return f"t{name}"


@cache
def curve_of(kernel: Kernel) -> type[Op] | None:
    """The op of a vjp's tangent; None: the vjp does not depend on what moves but through dy.

    kernel: the vjp of an elementwise op, or of a Pointwise loss.
    """
    formula, op = kernel.formula, kernel.op
    assert formula is not None and kernel.phase == "vjp"
    is_loss, (output,) = isinstance(formula, RowSlope), op.written("vjp")
    computed, (_, *others) = None, op.outputs
    if any(n in formula.parameters for n in others):  # their tangents are not at hand
        forward = op.kernels["forward"].formula
        assert forward is not None
        computed = tuple(op.outputs), forward
    moving = [n for n in formula.elements if n in kernel.tensors and n not in kernel.columns]
    if is_loss:
        moving = ["y"]  # targets do not move
    elif computed is not None:
        moving = [n for n in moving if n not in others] + list(op.inputs)
    name, own = f"{op.name}_curve", getattr(op, "curve", None)
    made = own or tangent_of(formula, {n: tangent_name(n) for n in moving}, name, computed)
    if made is None:
        return None
    gradient = f"d{op.main_output()}"
    if not any(tangent_name(n) in made.parameters for n in moving if n != gradient):
        return None
    specs = {tangent_name(n): op.spec(n) for n in moving}
    specs |= {n: op.spec(n) for n in made.parameters if n not in specs and op.spec(n)}
    read = [n for n in made.parameters if n in specs]
    body: dict[str, Any] = {
        "__module__": __name__,
        "__doc__": f"The tangent of {op.name}'s vjp.",
        "guest": op.guest,
        "on_host": op.on_host,
        "dims": op.dims,
        "scalars": op.scalars,
    }
    if is_loss:
        body["outputs"], read = {output: "B N"}, ["drow_loss", *read]
        made = RowSlope.of(made.tree, made.names)
    else:
        body["outputs"], body["inplace"] = {tangent_name(output): "B N"}, True
    body["inputs"] = {n: _text(specs.get(n) or op.spec(n)) for n in read}
    return type(name, (Op,), {**body, "forward": made})


def every() -> list[type[Op]]:
    """The curves of all ops of the package that have one."""
    load_ops()
    vjps = [k for _, k in sorted(KERNELS.items()) if k.phase == "vjp" and k.formula is not None]
    return [curve for curve in map(curve_of, vjps) if curve is not None]


def _text(spec: Any) -> str:
    return " ".join([*([spec.dtype] if spec.dtype else []), *spec.dims])
