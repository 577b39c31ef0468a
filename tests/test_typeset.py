"""Formulas of docstrings as LaTeX, and as the MathML that the documentation shows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
METHODS = (DOCS / "methods.md").read_text("utf-8")


@pytest.fixture
def typeset(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    import typeset

    yield typeset.typeset
    monkeypatch.delitem(sys.modules, "typeset")


@pytest.mark.parametrize(
    ("text", "latex"),
    [
        ("y = max(x, 0), elementwise", r"$y = \max(x, 0)$, elementwise"),
        ("y = w·x/√(σ² + eps)", r"$y = \frac{w \cdot x}{\sqrt{\sigma^{2} + \mathrm{eps}}}$"),
        ("m ← β₁m + (1 − β₁)d", r"$m \leftarrow \beta_{1} m + (1 - \beta_{1}) d$"),
        ("a/b·c / (√v̂ + 1)", r"$\frac{a}{b} \cdot \frac{c}{\sqrt{\hat{v}} + 1}$"),
        ("L = −(1/n)·Σ_rows log p_t", r"$L = -\frac{1}{n} \cdot \sum_{\mathrm{rows}} \log p_{t}$"),
        ("Σ v·y / Σ v", r"$\frac{\sum v \cdot y}{\sum v}$"),
        ("e^(−‖x − μ_j‖²/2)", r"$e^{-\frac{\lVert x - \mu_{j} \rVert^{2}}{2}}$"),
        ("e^x_k and 2^cycles", r"$e^{x_{k}}$ and $2^{\mathrm{cycles}}$"),
        ("(z/c)² and (z/c)·y", r"$(\frac{z}{c})^{2}$ and $\frac{z}{c} \cdot y$"),
        ("s = 1 or −1, at −3", r"$s = 1$ or $-1$, at $-3$"),
        ("lr·fan_in", r"$\mathrm{lr} \cdot \text{fan_in}$"),
        ("a row's mean m, a net, slopes a", "a row's mean $m$, a net, slopes $a$"),
        ("y = the image, by `a = b`", "$y$ = the image, by `a = b`"),
        ("log-probabilities, NaN, 3 and the rest", "log-probabilities, NaN, 3 and the rest"),
    ],
)  # fmt: skip
def test_formulas_become_latex_and_prose_stays(typeset, text, latex):
    assert typeset(text) == latex


def test_an_argument_that_stands_alone_is_set_as_in_the_formula(typeset):
    text = "lr·s for t, then lr; some lr"
    assert typeset(text, frozenset({"lr"})).endswith(r"then $\mathrm{lr}$; some lr")


def formulas() -> list[str]:
    """Those of the tables in docs/methods.md: their second cells."""
    rows = [line for line in METHODS.split("\n") if line.startswith("| `")]
    return [re.split(r"(?<!\\)\|", row)[2] for row in rows]


def test_no_sign_of_a_formula_is_left_in_the_prose():
    assert len(formulas()) > 130
    for cell in formulas():
        assert "$" in cell, cell
        prose = re.sub(r"\$[^$]*\$|`[^`]*`|iRprop⁻", "", cell)
        assert not re.search(r"[·√Σ←≤≥²₁σμ^_/|]|−", prose), cell


def test_latex_is_what_githubs_markdown_leaves_alone():
    for latex in re.findall(r"\$([^$]*)\$", "".join(formulas())):
        assert not re.search(r"\\[^A-Za-z]|\||\*|\\operatorname", latex), latex


def test_every_formula_becomes_mathml():
    latex2mathml = pytest.importorskip("docutils.utils.math.latex2mathml")
    found = {latex for cell in formulas() for latex in re.findall(r"\$([^$]*)\$", cell)}
    assert len(found) > 200
    for latex in found:
        assert str(latex2mathml.tex2mathml(latex)).startswith("<math"), latex
