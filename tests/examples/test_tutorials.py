"""The tutorials, which run as they are and print what stands beside them."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from pages import expected, fits

TUTORIALS = sorted((Path(__file__).parents[2] / "docs" / "tutorials").glob("*.py"))


@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text, printed = path.read_text("utf-8"), io.StringIO()
    assert text.startswith('"""') and text.count("\n# %% ") >= 3
    with redirect_stdout(printed):
        exec(compile(text, str(path), "exec"), {"__name__": "__main__"})
    told, lines = expected(text), printed.getvalue().splitlines()
    assert len(told) >= 4 and None not in told
    for comment, line in zip(told, lines, strict=True):
        assert fits(comment, line), (comment, line)


def test_there_are_tutorials():
    assert {path.stem for path in TUTORIALS} == {"first_net", "watch_and_tune", "embed"}
