"""Pages with programs: their blocks run in order, and print what stands beside them."""

from __future__ import annotations

import io
import re
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from pages import expected, fits

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page):
    """Each block behind empty lines, so that Python finds its source in the file."""
    text = (DOCS / page).read_text("utf-8")
    found = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return ["\n" * text.count("\n", 0, m.start(1)) + m[1] for m in found]


@pytest.mark.parametrize(
    "page", ["guide.md", "sklearn.md", "int8.md", "second-order.md", "full-batch.md"]
)
def test_its_blocks_run_in_order(page, tmp_path, monkeypatch):
    if page == "sklearn.md":
        pytest.importorskip("sklearn")
    if page in ("second-order.md", "full-batch.md"):
        pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": page.removesuffix(".md")}
    checked, least = 0, {"int8.md": 2, "full-batch.md": 0}.get(page, 7)
    for block in blocks(page):
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(block, str(DOCS / page), "exec"), names)
        lines = printed.getvalue().splitlines()
        told = expected(block)
        for text, line in zip(told, lines[len(lines) - len(told) :], strict=True):
            if text is not None and not text.startswith("a "):
                assert fits(text, line), (text, line)
                checked += 1
    assert checked >= least


@pytest.mark.parametrize(("text", "line"), [("True", "False"), ("12 12", "12 13"), ("a …", "b c")])
def test_what_does_not_fit(text, line):
    assert not fits(text, line)
