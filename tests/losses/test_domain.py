"""Every loss over its whole domain in float32, against closed forms in a longer format."""

from __future__ import annotations

import math
import re
from itertools import product

import numpy as np
import pytest
from numpy import exp, log, log1p, maximum
from onecall import Call

import fastnet as fn
from fastnet.op import KERNELS
from fastnet.tape import Tape, Value

LARGEST = float(np.finfo(np.float32).max)
SMALLEST = float(np.finfo(np.float32).smallest_normal)
INF = np.inf

REALS = [-3e38, -1e20, -1e4, -90, -17, -16, -1, -1e-4, -1e-30, 0.0]
REALS += [-x for x in REALS[-2::-1]]
LOGITS = [*REALS, -110, -50, -30, -10, -3, -0.1, 0.1, 3, 10, 20, 30, 50, 88, 89, 95, 110]
SHARES = [0.0, 1e-38, 1e-8, 0.1, 0.5, 0.7, 1 - 2**-24, 1.0]
COUNTS = [0.0, 1e-3, 0.5, 1.0, 2.0, 100.0, 1e6, 1e30, 3e38]
RATES = [0.0, 1e-38, 1e-8, 1e-3, 1.0, 2.0, 100.0, 1e6, 1e30, 3e38]
LOG_SHARES = [-INF, -3e38, -1e4, -200, -170, -100, -50, -10, -1, -1e-4, 0.0]
V = [0.0, 2.0, 0.5]  # weights of classes


def softplus(x):
    return maximum(x, 0) + log1p(exp(-abs(x)))


def sigmoid(x):
    return exp(-softplus(-x))


def of_terms(*terms):
    """A sum, and that of the magnitudes."""
    return sum(terms), sum(abs(term) for term in terms)


def of_error(value, slope):
    """A loss of y − t, which rounds once."""

    def loss(y, t):
        e = y - t
        cost, d = value(e), slope(e)
        far = INF if abs(e) > LARGEST else 0  # the difference overflows
        return (cost, abs(cost) + far), (d, abs(d) + far)

    return loss


def of_quantile(q):
    """Value and slope of the error e = y − t."""
    return lambda e: max(
        (q - 1) * -e if e > 0 else -q * e, 0
    ), lambda e: 1 - q if e > 0 else -q if e < 0 else 0


def of_bce_logits(u=1.0):
    def loss(y, t):
        false, true = (1 - t) * softplus(y), u * t * softplus(-y)
        return of_terms(false, true), of_terms((1 - t) * sigmoid(y), -u * t * sigmoid(-y))

    return loss


def of_bce(y, t):
    true = -t * maximum(log(y), -100)
    least = np.longdouble(np.float32(1e-12))
    return of_terms(true, -(1 - t) * maximum(log1p(-y), -100)), of_terms(
        (y - t) / maximum(y * (1 - y), least)
    )


def of_kl(y, t):
    if t == 0:
        return of_terms(np.longdouble(0)), of_terms(-t)
    return of_terms(t * log(t), -t * y), of_terms(-t)


def of_kl_logs(y, t):
    if t == -INF:
        return of_terms(np.longdouble(0)), of_terms(np.longdouble(0))
    if y == -INF:
        return of_terms(INF), of_terms(-exp(t))
    return of_terms(exp(t) * t, -exp(t) * y), of_terms(-exp(t))


def of_poisson(log_input, full):
    def loss(y, t):
        rate, logarithm = (exp(y), y) if log_input else (y, log(y + np.longdouble(1e-8)))
        terms = [rate, -t * logarithm]
        rounded = [] if log_input else [t]  # as y + eps is
        if full and t > 1:
            terms += [t * log(t), -t, 0.5 * log(2 * np.longdouble(np.pi) * t)]
        slope = (rate, -t) if log_input else (np.longdouble(1), -t / (y + np.longdouble(1e-8)))
        return (sum(terms), sum(map(abs, terms + rounded))), of_terms(*slope)

    return loss


def of_rbf(u, beta):
    def loss(y, t):
        cost = u * exp(-beta * (y - t) ** 2)
        return of_terms(cost), of_terms(-2 * beta * (y - t) * cost)

    return loss


def of_gaussian(y, t):
    s = maximum(y[1], np.longdouble(1e-6))
    e = t - y[0]
    far = INF if abs(e) > LARGEST else 0
    square, mean, variance = e * e / s, of_terms(-e / s), of_terms(0.5 / s, -0.5 * (e / s) ** 2)
    value, size = of_terms(0.5 * log(s), 0.5 * square)
    slope, size_of_slope = (np.array(pair) for pair in zip(mean, variance, strict=True))
    return (value, size + far), (slope, size_of_slope + far)


def of_cross_entropy(v=None, smoothing=0.0):
    """For a label, or probabilities."""

    def loss(z, t):
        v_ = np.ones(z.size, np.longdouble) if v is None else np.array(v, np.longdouble)
        t = np.eye(z.size, dtype=np.longdouble)[t] if np.ndim(t) == 0 else t
        q = v_ * ((1 - np.longdouble(smoothing)) * t + np.longdouble(smoothing) / z.size)
        below = z - z.max()
        top = below == 0
        rest = np.sum(exp(below[~top])) + (top.sum() - 1)
        p = exp(below) / (1 + rest)
        terms = [q.sum() * log1p(rest), *(-q[q > 0] * below[q > 0])]
        others = np.array([np.sum(np.delete(p, c)) for c in range(p.size)])
        d = p * np.array([np.sum(np.delete(q, c)) for c in range(p.size)]) - q * others
        value, size = of_terms(*terms)
        far = INF if np.any((q > 0) & (below < -LARGEST)) else 0
        return (value, size + far), (d, p * (q.sum() - q) + q * others)

    return loss


def of_nll(v=None):
    def loss(y, t):
        share = np.longdouble(1 if v is None else v[t])
        d = np.zeros(y.size, np.longdouble)
        d[t] = -share
        return of_terms(-share * y[t] if share else share), (d, abs(d))

    return loss


def of_hinge(multi, p=1, margin=1.0):
    def loss(y, t):
        s = np.where(np.arange(y.size) == t, 1, -1)
        short = margin + (y - y[t] if multi else -s * y)
        size = margin + abs(y - y[t] if multi else y)
        if multi:
            short[t] = size[t] = 0
        kept, n = short > 0, y.size if multi else 1
        d, scale = (
            np.where(kept, 1 if p == 1 else 2 * a, np.longdouble(0)) / n for a in (short, size)
        )
        if multi:
            d[t], scale[t] = -d.sum(), scale.sum()
        else:
            d = -s * d
        far = np.where(size > LARGEST, INF, 0)  # where a difference overflows
        if multi:
            far[t] = far.max()
        value = np.sum(np.where(kept, short, 0) ** p) / n
        size_of_value = np.sum(np.where(kept, size, 0) ** p) / n + far.max()
        return (value, size_of_value), (d, scale + far)

    return loss


def pairs(ys, ts):
    return [((y,), (t,)) for y, t in product(ys, ts)]


def labelled(numbers, columns=3):
    return [(row, t) for row in product(numbers, repeat=columns) for t in range(columns)]


CLASSES = [-INF, -3e38, -100.0, -20.0, 0.0, 0.5, 17.0, 3e38]
LOGIT_ROWS = [(z, t) for z, t in labelled(CLASSES) if max(z) > -INF]
SOFT = [(1.0, 0.0, 0.0), (0.25, 0.0, 0.75), (0.2, 0.3, 0.5), (0.0, 1 - 2**-24, 2**-24)]
SOFT_ROWS = [(z, t) for z in sorted({z for z, _ in LOGIT_ROWS}) for t in SOFT][::3]
HINGES = labelled([-3e38, -1e8, -1.0, 0.25, 1.0, 3.0, 1e8, 3e38])
ERRORS = pairs(REALS, [-3e38, -1.0, 0.0, 1e-30, 0.5, 1e8, 3e38])
SQUARE = of_error(lambda e: e * e, lambda e: 2 * e)
HALF = of_error(lambda e: e * e / 2, lambda e: e)


def of_huber(delta, divisor=1.0):
    delta, divisor = np.longdouble(np.float32(delta)), np.longdouble(np.float32(divisor))
    return of_error(
        lambda e: min(abs(e), delta) * (abs(e) - min(abs(e), delta) / 2) / divisor,
        lambda e: min(max(e, -delta), delta) / divisor,
    )


def log_cosh(e):
    a = abs(e)
    m = np.expm1(-min(a, np.longdouble(1)))
    return log1p(m * m / 2 / (1 + m)) if a < 1 else a + log1p(exp(-2 * a)) - log(np.longdouble(2))


def over(made, closed, rows):
    """A case: what makes the loss for a reduction, its closed form, rows of outputs and targets."""
    return made, closed, rows


CASES = {
    "bce": over(fn.BCELoss, of_bce, pairs([*SHARES, 1e-20, 1e-5, 0.999], SHARES)),
    "bce logits": over(fn.BCEWithLogitsLoss, of_bce_logits(), pairs(LOGITS, SHARES)),
    **{
        f"bce logits {u}": over(
            lambda u=u, **r: fn.BCEWithLogitsLoss(u, **r), of_bce_logits(u), pairs(LOGITS, SHARES)
        )
        for u in (0.0, 3.0, 1e6)
    },
    "kl": over(fn.KLDivLoss, of_kl, pairs([-INF, *LOGITS], SHARES)),
    "kl of logs": over(
        lambda **r: fn.KLDivLoss(log_target=True, **r),
        of_kl_logs,
        pairs([-INF, *LOGITS], LOG_SHARES),
    ),
    "mse": over(fn.MSELoss, SQUARE, ERRORS),
    "half mse": over(fn.HalfMSELoss, HALF, ERRORS),
    "l1": over(fn.L1Loss, of_error(abs, np.sign), ERRORS),
    **{
        f"huber {d}": over(lambda d=d, **r: fn.HuberLoss(d, **r), of_huber(d), ERRORS)
        for d in (1.0, 1e-30, 1e30)
    },
    **{
        f"smooth l1 {b}": over(lambda b=b, **r: fn.SmoothL1Loss(b, **r), of_huber(b, b), ERRORS)
        for b in (1.0, 1e-30, 2e38)
    },
    "smooth l1 0": over(lambda **r: fn.SmoothL1Loss(0.0, **r), of_error(abs, np.sign), ERRORS),
    **{
        f"pinball {q}": over(
            lambda q=q, **r: fn.PinballLoss(q, **r), of_error(*of_quantile(q)), ERRORS
        )
        for q in (0.25, 0.5, 1e-3)
    },
    "log cosh": over(fn.LogCoshLoss, of_error(log_cosh, np.tanh), ERRORS),
    **{
        f"poisson{' log' * how}{' full' * full}": over(
            lambda how=how, full=full, **r: fn.PoissonNLLLoss(how, full, **r),
            of_poisson(how, full),
            pairs(LOGITS if how else RATES, COUNTS),
        )
        for how, full in product([True, False], repeat=2)
    },
    **{
        f"rbf {b}": over(
            lambda b=b, **r: fn.RBFLoss(-0.5, b, **r),
            of_rbf(-0.5, np.longdouble(np.float32(b))),
            [*ERRORS, *pairs([3.0, 8.0, 9.3, 9.9, 10.1], [0.0, 0.5])],
        )
        for b in (1.0, 1e-37, 1e30)
    },
    "gaussian": over(
        fn.GaussianNLLLoss,
        of_gaussian,
        [
            ((m, s), (t,))
            for m, s, t in product(
                [-3e38, -1e10, -1.0, 0.0, 2.0, 1e25],
                [0.0, 1e-30, 1e-6, 1e-3, 1.0, 1e10, 1e30, 3e38],
                [-1e25, 0.0, 1e-3, 2.0, 3e38],
            )
        ],
    ),
    "ce": over(fn.CrossEntropyLoss, of_cross_entropy(), LOGIT_ROWS),
    "ce weight": over(
        lambda **r: fn.CrossEntropyLoss(V, **r), of_cross_entropy(V), LOGIT_ROWS[::3]
    ),
    "ce smooth": over(
        lambda **r: fn.CrossEntropyLoss(V, label_smoothing=0.25, **r),
        of_cross_entropy(V, 0.25),
        LOGIT_ROWS[::3],
    ),
    "ce soft": over(fn.CrossEntropyLoss, of_cross_entropy(), SOFT_ROWS),
    "ce soft weight": over(lambda **r: fn.CrossEntropyLoss(V, **r), of_cross_entropy(V), SOFT_ROWS),
    "nll": over(fn.NLLLoss, of_nll(), labelled([-INF, *REALS[:4], -1e-30, 0.0])),
    "nll weight": over(lambda **r: fn.NLLLoss(V, **r), of_nll(V), labelled([-INF, -3e38, -1.0])),
    **{
        f"{name} {p}": over(
            lambda kind=kind, p=p, **r: kind(p, **r), of_hinge(name == "margin", p), HINGES[::2]
        )
        for name, kind in (("margin", fn.MultiMarginLoss), ("hinge", fn.OneVsRestHingeLoss))
        for p in (1, 2)
    },
}
OTHERS = {"FunctionLoss", "Loss"}  # whose domain is their function's; their base


def bound(loss):
    """What the docstring says."""
    (stated,) = re.findall(r"Accuracy \(see Loss\): ([0-9e-]+)", str(type(loss).__doc__))
    return float(stated)


def arrays(case, loss):
    """Outputs and targets of a case in float32."""
    rows = CASES[case][2]
    y, t = (np.array(part) for part in zip(*rows, strict=True))
    y = y.astype(np.float32)
    return y, loss.target(t if t.dtype == np.int64 else t.astype(np.float32), y.shape[1:])


def run(engine, phase, record, tensors):
    """One of an op's kernels on a backend; what it writes, by name."""
    op, kernel = record.op, KERNELS[f"{record.op.name}_{phase}"]
    absent = tuple(n for n in op.optional if n not in tensors)
    call = Call(kernel, "float32", len(tensors["row_loss"]), record.sizes, tensors, absent=absent)
    call.program[0]["scalar"][: len(op.scalars)] = [record.arguments[s] for s in op.scalars]
    with np.errstate(all="ignore"):
        return call.run(engine)


def on_engine(engine, loss, y, t):
    """The losses of rows and their gradients."""
    tape = Tape(np.float32)
    with np.errstate(all="ignore"):
        loss.emit(tape, Value(y), Value(t))
    record = tape.records[0]
    given = {n: v for n, v in record.arguments.items() if n in record.op.tensors and v is not None}
    tensors = {n: tape._array(v) for n, v in given.items()}
    out = run(engine, "forward", record, tensors)
    tensors |= out | {"drow_loss": np.ones(len(y))}
    (gradient,) = run(engine, "vjp", record, tensors).values()
    with np.errstate(all="ignore"):
        return out["row_loss"], gradient * np.float64(len(y) if "loss" in out else 1)


def wanted(case, y, t):
    """The exact losses and gradients of rows, and the magnitudes of their terms."""
    exact = []
    for a, b in zip(y.astype(np.longdouble), t, strict=True):
        b = b if np.ndim(b) == 0 else b.astype(np.longdouble)
        if np.ndim(b) and b.size == 1:
            a, b = a if a.size > 1 else a[0], b[0]
        exact.append([np.array(part) for pair in CASES[case][1](a, b) for part in pair])
    return [np.array(part) for part in zip(*exact, strict=True)]


def check(got, want, scale, tol):
    """Within tol of the terms' magnitudes, or infinite where float32 ends."""
    got, scale = got.astype(np.longdouble).reshape(want.shape), np.minimum(scale, 1e4000)
    near = abs(got - want) <= tol * scale + 4 * SMALLEST * len(got)
    infinite = (got == np.sign(want) * INF) & (
        (abs(want) > (1 - tol) * LARGEST) | (scale > LARGEST)
    )
    return near | infinite


def check_all(case, tol, results, y, t):
    with np.errstate(all="ignore"):
        value, size, slope, size_of_slope = wanted(case, y, t)
        for name, got, want, scale in (
            ("loss", results[0], value, size),
            ("gradient", results[1], slope, size_of_slope),
        ):
            good = check(got, want, scale, tol).reshape(len(y), -1).all(axis=1)
            bad = np.flatnonzero(~good)
            assert not bad.size, (
                f"{bad.size} of {len(y)}: the {name} at y = {y[bad[0]]}, t = {t[bad[0]]} is "
                f"{got[bad[0]]}, not {want[bad[0]]}"
            )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_kernels(engine, case, reduction):
    loss = CASES[case][0](reduction=reduction)
    y, t = arrays(case, loss)
    check_all(case, bound(loss), on_engine(engine, loss, y, t), y, t)


@pytest.mark.parametrize("case", CASES)
def test_each_element(case):
    """With reduction="none", where some losses have arithmetic of their own."""
    loss = CASES[case][0](reduction="none")
    y, t = arrays(case, loss)
    check_all(case, bound(loss), (loss.forward(y, t), loss.backward()), y, t)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_million_rows(backend, reduction):
    """Small losses after large ones, each exact in float32, against a sum that rounds once."""
    count = 10**6
    y = np.random.default_rng(0).normal(size=(count, 1)).astype(np.float32)
    y[::1000] *= 2**20
    t, w = np.zeros_like(y), np.arange(count) % 3
    model = fn.Sequential(fn.Dropout(0.0), backend=backend)
    for loss, rows in ((fn.L1Loss, abs(y)), (fn.MSELoss, y * y), (fn.HalfMSELoss, y * y / 2)):
        for weight in (None, w):
            share = np.ones(count) if weight is None else weight
            exact = math.fsum(rows[:, 0].astype(np.float64) * share)
            exact /= share.sum() if reduction == "mean" else 1
            value = model.value_and_grad(loss(reduction=reduction), y, t, sample_weight=weight)
            assert value == pytest.approx(exact, rel=1e-10)
