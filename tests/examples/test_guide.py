"""Pages with programs: their blocks run in order, and print what stands beside them."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path

import pytest
from pages import expected, fits

import fastnet as fn

DOCS = Path(__file__).parents[2] / "docs"
# Pages whose blocks run in a test of their own, need a GPU, or are pieces of fastnet itself.
ELSEWHERE = {"c.md", "cuda.md", "design.md", "learned.md", "scaling.md"}
SILENT = {"full-batch.md", "reproducibility.md"}  # whose blocks say nothing of what they print
NEEDED = {"from-scikit-learn.md": "sklearn", "sklearn.md": "sklearn", "full-batch.md": "scipy"}
NEEDED |= {"second-order.md": "scipy", "tour.md": "matplotlib"}
OTHERS = ("keras", "onnxruntime", "sklearn", "torch")  # a block that imports one is run where it is


def blocks(page):
    """Each block behind empty lines, so that Python finds its source in the file."""
    text = (DOCS / page).read_text("utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, m.start(1)) + m[1] for m in found]


PAGES = [p.name for p in sorted(DOCS.glob("*.md")) if p.name not in ELSEWHERE and blocks(p.name)]


@pytest.mark.filterwarnings("ignore:::matplotlib")
@pytest.mark.parametrize("page", PAGES)
def test_its_blocks_run_in_order(page, tmp_path, monkeypatch):
    if page in NEEDED:
        pytest.importorskip(NEEDED[page])
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.removesuffix(".md"), "model": fn.Sequential(fn.Linear(2, 1), seed=0)}
    checked = 0
    for block in blocks(page):
        others = re.findall(rf"^(?:import|from) ({'|'.join(OTHERS)})\b", block, re.MULTILINE)
        if not all(find_spec(other) for other in others):
            continue
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(block, str(DOCS / page), "exec"), names)
        lines = printed.getvalue().splitlines()
        told = expected(block)
        for text, line in zip(told, lines[len(lines) - len(told) :], strict=True):
            if text is not None and not text.startswith("a "):
                assert fits(text, line), (text, line)
                checked += 1
    assert checked or page in SILENT


@pytest.mark.parametrize(("text", "line"), [("True", "False"), ("12 12", "12 13"), ("a …", "b c")])
def test_what_does_not_fit(text, line):
    assert not fits(text, line)
