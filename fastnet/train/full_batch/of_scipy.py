"""SciPy's methods: quasi-Newton, and Newton's with products of the Hessian."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from fastnet.errors import MissingExtra
from fastnet.op import Array
from fastnet.train.full_batch.base import (
    FLAT,
    Method,
    Note,
    above_0,
    converged,
    flag,
    inside,
    real,
    result_of,
    whole,
)
from fastnet.train.full_batch.objective import Objective
from fastnet.train.full_batch.settings import Settings

AT_LEAST_0: Any = partial(real, low=0.0)
# With the default None an option is SciPy's own; tol and max_iter set gtol and maxiter.
WOLFE = {"c1": inside(None), "c2": inside(None)}
TRUST_REGION = {
    "initial_trust_radius": above_0(None),
    "max_trust_radius": above_0(None),
    "eta": real(None, low=0.0, high=0.25, open_high=True),
}


def scipy_optimize(method: str) -> Any:
    """The module scipy.optimize, or MissingExtra."""
    try:
        import scipy.optimize
    except ImportError as error:
        raise MissingExtra(
            f"method={method!r} needs SciPy ({error}); install it with "
            f"""pip install "fastnet-engine[scipy]", or take method='levenberg-marquardt' for a """
            "least-squares loss or method='gradient-descent', which need none"
        ) from None
    return scipy.optimize


def prepare(objective: Objective, settings: Settings) -> None:
    """Refuse a missing SciPy."""
    scipy_optimize(settings.method.name)


def minimize(
    objective: Objective, settings: Settings, note: Note, leave_out: Any = (), **more: Any
) -> Any:
    """Minimise by SciPy.

    leave_out: options that are not SciPy's. more: arguments of scipy.optimize.minimize.
    """
    if converged(objective, settings):
        return result_of(objective, True, FLAT)
    name = settings.method.name
    eps = float(np.finfo(objective.storage.dtype).eps)
    limits = {
        "L-BFGS-B": {"gtol": settings.tol, "ftol": eps, "maxfun": 100 * settings.max_iter},
        "Newton-CG": {"xtol": eps},
    }
    given = {
        key: value
        for key, value in settings.options.items()
        if value is not None and key not in leave_out
    }
    options = {"maxiter": settings.max_iter, **limits.get(name, {"gtol": settings.tol}), **given}

    def accepted(intermediate_result: Any) -> None:
        if np.array_equal(intermediate_result.x, objective.accepted.x):
            return  # an iteration of a trust region that kept its place
        note(intermediate_result.x)
        if converged(objective, settings):
            raise StopIteration

    result = scipy_optimize(name).minimize(
        objective.value_and_grad,
        objective.accepted.x,
        jac=True,
        method=name,
        callback=accepted,
        options=options,
        **more,
    )
    if converged(objective, settings):
        result.success, result.message = True, FLAT
    return result


class _NotFinite(Exception):
    """SciPy asks for the product with a vector that is not finite."""


def minimize_with_hessian(objective: Objective, settings: Settings, note: Note) -> Any:
    """The same with products of the Hessian, of one linearisation for each iterate."""

    def product(x: Array, v: Array) -> Array:
        if not np.isfinite(v).all():  # trust-krylov does where the Hessian is singular
            raise _NotFinite
        return objective.linearize(x).hvp(v)

    try:
        with np.errstate(over="ignore", invalid="ignore"):
            return minimize(objective, settings, note, hessp=product)
    except _NotFinite:
        return result_of(
            objective,
            False,
            "SciPy's inner iteration broke down, as it does at singular Hessians; go on by "
            "method='trust-ncg'",
        )


QUASI_NEWTON = (
    Method(
        "L-BFGS-B",
        minimize,
        {
            "maxcor": whole(None),
            "ftol": AT_LEAST_0(None),
            "gtol": AT_LEAST_0(None),
            "maxfun": whole(None),
            "maxls": whole(None),
        },
        prepare,
    ),
    Method(
        "BFGS",
        minimize,
        {"gtol": AT_LEAST_0(None), "xrtol": AT_LEAST_0(None), **WOLFE},
        prepare,
    ),
)
NEWTON = (
    Method(
        "Newton-CG",
        minimize_with_hessian,
        {"xtol": AT_LEAST_0(None), **WOLFE},
        prepare,
    ),
    Method("trust-ncg", minimize_with_hessian, TRUST_REGION, prepare),
    Method("trust-krylov", minimize_with_hessian, {**TRUST_REGION, "inexact": flag(None)}, prepare),
)
