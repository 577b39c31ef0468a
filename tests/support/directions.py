"""Directions, and derivatives along them by differences, with which tests compare exact ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fastnet as fn

# Central differences of order 8: f(kh) − f(−kh) for k = 1, 2, 3, 4.
WEIGHTS = 4 / 5, -1 / 5, 4 / 105, -1 / 280
STEP = 1e-2


def direction(model: Any, seed: int = 0, size: float = 1.0) -> dict[str, Any]:
    """Random numbers for each parameter that is not frozen, whose root mean square is `size`."""
    random, frozen = np.random.default_rng(seed), set(model.frozen)
    named = {n: p for n, p in model.named_parameters().items() if n not in frozen}
    return {n: size * random.normal(size=p.shape) for n, p in named.items()}


def slope(f: Callable[[float], Any], step: float = STEP) -> Any:
    """f′(0) of a smooth function of numbers or arrays, to some 1e-12."""
    return sum(w * (f(k * step) - f(-k * step)) for k, w in enumerate(WEIGHTS, 1)) / step


def at(model: Any, v: Any, t: float, compute: Callable[[], Any]) -> Any:
    """What `compute` gives with the parameters moved by t·v; all is as before afterwards."""
    state = model.state_dict()
    model.load_state_dict({n: a + t * v[n] if v and n in v else a for n, a in state.items()})
    try:
        return compute()
    finally:
        model.load_state_dict(state)


def gradients(
    model: fn.Sequential, loss: Any, x: Any, y: Any, weight: Any = None
) -> dict[str, Any]:
    """The gradients of all parameters that are not frozen."""
    model.zero_grad()
    model.value_and_grad(loss, x, y, sample_weight=weight)
    frozen = set(model.frozen)
    return {n: np.array(g) for n, g in model.grads.items() if n not in frozen}


def hessian_product(
    model: Any, loss: Any, x: Any, y: Any, v: Any, weight: Any = None, step: float = STEP
) -> dict[str, Any]:
    """H·v by differences of gradients."""
    names = list(v)

    def flat(t: float) -> Any:
        found = at(model, v, t, lambda: gradients(model, loss, x, y, weight))
        return np.concatenate([found[n].ravel() for n in names] or [np.zeros(0)])

    vector, end, made = slope(flat, step), 0, {}
    for name in names:
        begin, end = end, end + v[name].size
        made[name] = vector[begin:end].reshape(v[name].shape)
    return made


def jacobian_product(model: Any, x: Any, dx: Any, v: Any, step: float = STEP) -> Any:
    """J·(ẋ, v) by differences of outputs."""
    return slope(
        lambda t: at(model, v, t, lambda: model.forward(x if dx is None else x + t * dx)), step
    )


def largest(arrays: Any) -> float:
    """The largest magnitude."""
    return max((float(np.abs(a).max(initial=0)) for a in arrays), default=0.0)


def close(got: Any, want: Any, tol: float, what: Any = "", least: float = 1e-8) -> None:
    """Arrays, or dicts of them, to a share of the largest number of all."""
    if not isinstance(want, dict):
        got, want = {"": got}, {"": want}
    assert list(got) == list(want), what
    scale = max(largest(want.values()), least)
    for name, value in want.items():
        assert got[name].shape == value.shape, (what, name)
        np.testing.assert_allclose(
            got[name], value, rtol=0, atol=tol * scale, err_msg=f"{what} {name}"
        )
