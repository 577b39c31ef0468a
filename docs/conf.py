"""How Sphinx builds the documentation: `sphinx-build -W docs build/docs`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml

import fastnet

project = "fastnet"
author = "The fastnet developers"
release = version = fastnet.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_enable_extensions = ["dollarmath"]
html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["formulas.css"]
html_title = f"fastnet {release}"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "none"
# Links out of docs/ lead to files of the repository, which are no pages.
suppress_warnings = ["myst.xref_missing", "myst.header"]
ROOT = Path(__file__).resolve().parents[1]

ARGUMENT = re.compile(r"(\w+(?:, \w+)*): (?=\S)")


def _restructured(lines: list[str]) -> list[str]:
    """A docstring of fastnet as reStructuredText: arguments become fields, code in backticks code."""
    found, fields = [], False
    for line in inspect.cleandoc("\n".join(lines)).split("\n"):
        text = re.sub(r"`([^`]+)`", r"``\1``", re.sub(r"([\\*|])", r"\\\1", line))
        text = re.sub(
            r"``([^`]*)``", lambda m: "``" + re.sub(r"\\([\\*|])", r"\1", m[1]) + "``", text
        )
        text = re.sub(r"(\w)_(?=\W|$)(?![^`]*``)", r"\1\\_", text)
        begun = ARGUMENT.match(text)
        if begun and not line.startswith(" ") and not text.startswith(("Source:", "Sources:")):
            if not fields and found and found[-1]:
                found.append("")
            fields = True
            names = begun[1].replace(", ", ",")  # Sphinx takes what comes before a blank for a type
            found.append(f":param {names}: {text[begun.end() :]}")
        elif fields and line.startswith(" "):
            found.append("    " + text.strip())
        else:
            if fields and line:
                found.append("")
            fields = False
            found.append("| " + text if line.startswith("    ") else text)
    return [*found, ""]


def _process(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    lines[:] = _restructured(lines)


def _inline(writer: Any, node: nodes.math) -> None:
    """A formula as MathML, which browsers set by themselves, offline and in the text's colour."""
    writer.body.append(str(tex2mathml(node.astext())))
    raise nodes.SkipNode


def _block(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(f"<p>{tex2mathml(node.astext(), as_block=True)}</p>\n")
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Let Sphinx read docstrings as fastnet writes them, and write formulas as MathML."""
    app.connect("autodoc-process-docstring", _process)
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
