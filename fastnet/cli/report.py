"""The report of a training: what a net is worth on rows that it has not seen, as text and as a page."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np

import fastnet as fn
from fastnet.cli.choosing import Inputs, told
from fastnet.op import Array
from fastnet.plot.figures import FIRST, SECOND, figure_of

NAMES = {"small": "RealMLP-TD-S", "full": "RealMLP-TD", "tabm": "TabM"}
REPEATS = 5  # permutations of each column
MOST_ROWS = 2_000  # that importance is measured on
MOST_BARS = 20
MOST_POINTS = 5_000


@dataclass
class Result:
    """What a report tells."""

    inputs: Inputs
    net: str
    rows: tuple[int, int]  # of the training, validation included, and of the test
    history: Any
    labels: list[str]  # of classes, else empty
    counts: list[int]  # of the training's rows by class
    scores: dict[str, float] = field(default_factory=dict)
    baseline: dict[str, float] = field(default_factory=dict)  # of what needs no inputs
    true: Array | None = None
    predicted: Array | None = None
    importance: list[tuple[str, float, float]] = field(default_factory=list)  # mean, deviation
    importance_of: str = ""
    source: str = ""
    target: str = ""
    seconds: float = 0.0


def measured(
    estimator: Any, X: Any, y: Array, y_training: Array, inputs: Inputs, seed: int
) -> Result:
    """What a fitted estimator is worth on test rows X, y."""
    model = estimator.table_model()
    nets = [net for part in model.nets for net in part.models]
    of_classes = model.classes is not None
    result = Result(
        inputs,
        f"{NAMES[model.preset]}, {sum(p.size for p in nets[0].state_dict().values()):,} parameters",
        (len(y_training), len(y)),
        estimator.histories_[0],
        [str(label) for label in model.classes] if model.classes is not None else [],
        np.unique(y_training, return_counts=True)[1].tolist() if of_classes else [],
    )
    if not len(y):
        return result
    result.true, result.predicted = y, estimator.predict(X)
    if of_classes:
        _classes(result, estimator, X, y, y_training)
    else:
        _numbers(result, y, y_training)
    from sklearn.inspection import permutation_importance

    chosen = np.random.default_rng(seed).permutation(len(y))[:MOST_ROWS]
    found = permutation_importance(
        estimator, X.iloc[chosen], y[chosen], n_repeats=REPEATS, random_state=seed
    )
    result.importance_of = "accuracy" if of_classes else "R²"
    parts = zip(X.columns, found.importances_mean, found.importances_std, strict=True)
    result.importance = sorted(
        ((str(n), float(m), float(s)) for n, m, s in parts), key=lambda part: -part[1]
    )
    return result


def _classes(result: Result, estimator: Any, X: Any, y: Array, y_training: Array) -> None:
    """Scores of labels and probabilities."""
    from sklearn.metrics import roc_auc_score

    p, classes = estimator.predict_proba(X), estimator.classes_
    share = np.unique(y_training, return_counts=True)[1] / len(y_training)
    known = np.isin(y, classes)
    at = np.searchsorted(classes, y[known])
    result.scores["accuracy"] = float(np.mean(result.predicted == y))
    result.baseline["accuracy"] = float(np.mean(classes[share.argmax()] == y))
    if len(at):
        result.scores["log-loss"] = float(-np.log(np.maximum(p[known, at], 1e-300)).mean())
        result.baseline["log-loss"] = float(-np.log(share[at]).mean())
    if len(classes) == 2 and len(np.unique(at)) == 2:
        result.scores["AUC"], result.baseline["AUC"] = float(roc_auc_score(at, p[known, 1])), 0.5


def _numbers(result: Result, y: Array, y_training: Array) -> None:
    """Scores of numbers."""
    for scores, predicted in (
        (result.scores, result.predicted),
        (result.baseline, np.full(len(y), y_training.mean())),
    ):
        error = y - predicted
        scores["RMSE"] = float(np.sqrt(np.mean(error**2)))
        scores["mean absolute error"] = float(np.abs(error).mean())
        spread = float(((y - y.mean()) ** 2).sum())
        scores["R²"] = 1 - float((error**2).sum()) / spread if spread > 0 else float("nan")


def lines(result: Result) -> list[tuple[str, str]]:
    """What text and page say, by heading."""
    inputs, (training, test) = result.inputs, result.rows
    found = [("data", f"{result.source}: {training:,} rows to train on, {test:,} held back")]
    if result.labels:
        parts = [f"{n} ({c:,})" for n, c in zip(result.labels, result.counts, strict=True)]
        found.append(("target", f"{result.target}, {len(parts)} classes: {', '.join(parts)}"))
    else:
        found.append(("target", f"{result.target}, numbers"))
    found.append(("numbers", ", ".join(inputs.numbers) or "none"))
    found.append(("categories", ", ".join(inputs.categories) or "none"))
    if inputs.left:
        found.append(("left out", told(inputs.left)))
    found.append(("net", f"{result.net}; {len(result.history)} epochs in {result.seconds:.1f} s"))
    for name, value in result.scores.items():
        simple = "the most frequent class" if result.labels else "the mean of the training"
        if name != "accuracy" and result.labels:
            simple = "the classes' shares"
        found.append(
            (name, f"{value:.4g} on the rows held back ({simple}: {result.baseline[name]:.4g})")
        )
    return found


def text(result: Result) -> str:
    """The report as lines of text."""
    found = lines(result)
    width = max(len(name) for name, _ in found)
    made = [f"{name:<{width}}  {value}" for name, value in found]
    if result.importance:
        made += ["", f"importance: what {result.importance_of} falls by where a column is shuffled"]
        longest = max(len(name) for name, _, _ in result.importance[:MOST_BARS])
        for name, mean, deviation in result.importance[:MOST_BARS]:
            made.append(f"  {name:<{longest}}  {mean:8.4f} ± {deviation:.4f}")
    return "\n".join(made)


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}"
    "th{text-align:left;vertical-align:top;padding-right:1.5rem;font-weight:600}"
    "img{max-width:100%;height:auto}h1,h2{font-weight:600}"
)


def page(result: Result) -> str:
    """The report as one HTML page with its pictures in it, which needs no other file."""
    rows = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>\n"
        for name, value in lines(result)
    )
    parts = [("Learning curve", result.history.plot())]
    if result.true is not None and result.predicted is not None and result.labels:
        classes = {*map(str, result.true), *result.labels}
        made = fn.plot.confusion_matrix(
            np.array([*map(str, result.true)]),
            np.array([*map(str, result.predicted)]),
            classes=sorted(
                classes, key=lambda n: (n not in result.labels, _place(result.labels, n))
            ),
        )
        parts.append(("Confusion matrix of the rows held back", made))
    if result.true is not None and not result.labels:
        parts.append(("Predictions and residuals of the rows held back", _residuals(result)))
    if result.importance:
        parts.append(
            (f"Permutation importance: what {result.importance_of} falls by", _bars(result))
        )
    pictures = "".join(
        f'<h2>{html.escape(title)}</h2>\n<img alt="{html.escape(title)}" src="{_inline(figure)}">\n'
        for title, figure in parts
    )
    title = html.escape(f"{result.target} from {result.source}")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>\n'
        f"<body><h1>{title}</h1>\n<table>\n{rows}</table>\n{pictures}</body></html>\n"
    )


def _place(labels: list[str], name: str) -> int:
    return labels.index(name) if name in labels else len(labels)


def _inline(figure: Any) -> str:
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _residuals(result: Result) -> Any:
    """Predictions beside true values, and the histogram of what is between."""
    assert result.true is not None and result.predicted is not None
    figure = figure_of(None, 9.0, 4.0)
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2)
    true, predicted = result.true[:MOST_POINTS], result.predicted[:MOST_POINTS]
    left.plot(true, predicted, ".", color=FIRST, markersize=4, alpha=0.5)
    ends = [min(true.min(), predicted.min()), max(true.max(), predicted.max())]
    left.plot(ends, ends, color=SECOND, linewidth=1)
    left.set(xlabel=f"true {result.target}", ylabel="predicted")
    right.hist(result.predicted - result.true, bins=40, color=FIRST)
    right.axvline(0, color=SECOND, linewidth=1)
    right.set(xlabel="predicted − true", ylabel="rows")
    right.locator_params(axis="x", nbins=5)
    return figure


def _bars(result: Result) -> Any:
    """Importances with their deviations, the largest on top."""
    names, means, deviations = zip(*result.importance[:MOST_BARS][::-1], strict=True)
    figure = figure_of(None, 8.0, 0.8 + 0.3 * len(names))
    axes = figure.add_subplot(1, 1, 1)
    axes.barh(range(len(names)), means, xerr=deviations, color=FIRST, ecolor=SECOND)
    axes.set_yticks(range(len(names)), [n if len(n) <= 40 else f"{n[:39]}…" for n in names])
    axes.spines[["top", "right"]].set_visible(False)
    return figure
