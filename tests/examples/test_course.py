"""The course's experiments: the command as a newcomer runs it, its page, and the figures' bands."""

from __future__ import annotations

import html.parser
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import fastnet as fn
from fastnet.examples.course import main as course
from fastnet.examples.course.experiment import Result, Row
from fastnet.examples.course.found import found

EXPERIMENTS = found()
SUBJECTS = {
    *("depth", "line", "xor", "backprop", "batchnorm", "zeiler", "memorising", "cliff", "initial"),
    *("rates", "small", "rbf", "pretraining", "saddle", "learned"),
}


def run(cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    package = Path(fn.__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastnet.examples.course", *options],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(package), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


class Checked(html.parser.HTMLParser):
    """Which ids a page has, which it names, and whether its elements close in order."""

    EMPTY = frozenset({"meta", "br"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.named: set[str] = set()
        self.outside: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)
        self.see(attrs)

    def handle_startendtag(self, tag, attrs):
        self.see(attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def see(self, attrs):
        for name, value in attrs:
            self.ids += [value] if name == "id" else []
            self.named |= set(re.findall(r"url\(#(.*?)\)", value or ""))
            if name in ("href", "xlink:href", "src") and not value.startswith("data:"):
                if value.startswith("#"):
                    self.named.add(value[1:])
                else:
                    self.outside.append(value)


def test_each_subject_has_its_experiment():
    assert {one.name for one in EXPERIMENTS} == SUBJECTS
    assert len({one.place for one in EXPERIMENTS}) == len(EXPERIMENTS)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The folder that a quick run of everything has written, and what is on its page."""
    pytest.importorskip("matplotlib")
    folder, parts, page = tmp_path_factory.mktemp("course"), [], course.page
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(course, "page", lambda found, head: parts.extend(found) or page(found, head))
        assert course.main(["--quick", "--out", str(folder)]) == 0
    return folder, parts


def test_the_page_has_every_experiment_and_needs_no_other_file(quick):
    folder, parts = quick
    assert [part.experiment for part in parts] == EXPERIMENTS
    page, seen = (folder / "index.html").read_text("utf-8"), Checked()
    seen.feed(page)
    assert seen.open == [] and seen.outside == []
    assert len(seen.ids) == len(set(seen.ids)) and seen.named <= set(seen.ids)
    assert page.count("<svg") == page.count("<table>") == len(EXPERIMENTS)
    assert "prefers-color-scheme:dark" in page and "A quick run" in page
    assert "the embedded 8×8 digits" in page


def test_each_picture_is_a_file_that_takes_the_colours_of_its_place(quick):
    folder, _ = quick
    files = {path.name for path in folder.iterdir()}
    assert files == {"index.html", *(f"{one.name}.svg" for one in EXPERIMENTS)}
    for one in EXPERIMENTS:
        text = (folder / f"{one.name}.svg").read_text("utf-8")
        assert "currentColor" in text and "#010203" not in text and "#040506" not in text
        assert "prefers-color-scheme:dark" in text and text.rstrip().endswith("</svg>")


def test_a_figure_that_nobody_compared_with_its_source_is_marked(quick):
    told = "not compared with the source"
    rows = [row for part in quick[1] for row in part.result.rows]
    assert told in Row("a", 1.0, 2.0, "someone", checked=False).cells()[4]
    assert told not in Row("a", 1.0, 2.0, "someone").cells()[4]
    assert {row.source[:9] for row in rows if not row.checked} == {"the cours", "M. D. Zei"}


def test_each_published_figure_has_its_source_and_the_reason_of_a_difference(quick):
    rows = [row for part in quick[1] for row in part.result.rows if row.published is not None]
    assert len(rows) > 60
    assert [row.what for row in rows if not row.source] == []
    exact = "exactly"  # where the source says so, there is none
    assert [row.what for row in rows if not row.why and exact not in row.source] == []
    assert all(row.ours == row.published for row in rows if row.source == "by hand, exactly")


def test_experiments_by_name_give_the_same_pictures_again(tmp_path):
    pytest.importorskip("matplotlib")
    texts = []
    for _ in range(2):
        done = run(tmp_path, "--quick", "--only", "xor", "--only", "backprop", "--out", "made")
        assert done.returncode == 0 and done.stderr == "", done.stderr
        lines = done.stdout.splitlines()
        assert "the embedded 8×8 digits" in lines[0] and "2 experiments" in lines[-1]
        made = sorted((tmp_path / "made").glob("*.svg"))
        assert [path.name for path in made] == ["backprop.svg", "xor.svg"]
        texts.append([path.read_text("utf-8") for path in made])
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (("--only", "nothing"), 2, "invalid choice: 'nothing'"),
        (("--seed", "-1"), 1, "--seed is -1; expected an integer of at least 0"),
        (("--data", "nowhere"), 1, "t10k-images-idx3-ubyte"),
        (("--out", "file"), 1, "file: File exists"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path, monkeypatch, capsys, options, code, told):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("", "utf-8")
    try:
        got = course.main(["--quick", *options])
    except SystemExit as ended:
        got = ended.code
    assert got == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert told in last


def test_without_matplotlib_the_remedy_is_told_before_anything_trains(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "fastnet.plot.picture", None)
    assert course.main(["--quick"]) == 1
    printed = capsys.readouterr()
    assert 'pip install "fastnet-engine[plot]"' in printed.err and printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_the_cells_of_a_row():
    row = Row("a", 96.534, 96.9, "b", " %", 2, "c")
    assert row.cells() == ("a", "96.53 %", "96.90 %", "−0.37 %", "b; c")
    assert replace(row, published=None, source="").cells() == ("a", "96.53 %", "–", "", "c")
    assert Row("a", float("inf")).cells()[1] == "∞"
    assert Row("a", -3.0, -3.0, digits=0).cells()[1:4] == ("−3", "−3", "+0")


def test_the_table_has_a_line_for_each_row():
    lines = course.table(Result([Row("short", 1.0), Row("a longer name", 20.0, 19.0)])).splitlines()
    assert len(lines) == 3
    assert lines[1].index("1.00") + 4 == lines[2].index("20.00") + 5


def within(one, seed, data):
    """The key figures of an experiment that a seed takes out of their bands."""
    figures = one.run(data, seed, False).figures
    assert figures.keys() == one.bands.keys()
    return {
        name: (value, one.bands[name])
        for name, value in figures.items()
        if not one.bands[name][0] <= value <= one.bands[name][1]
    }


@pytest.mark.slow
@pytest.mark.parametrize("seed", [100, 101, 102])
@pytest.mark.parametrize("one", EXPERIMENTS, ids=lambda one: one.name)
def test_figures_keep_their_bands(one, seed):
    """Seeds that did not make the bands."""
    assert within(one, seed, course.load(None)) == {}


@pytest.mark.parametrize("name", ["xor", "backprop", "rbf"])
def test_figures_of_quick_experiments_keep_their_bands(name):
    (one,) = (one for one in EXPERIMENTS if one.name == name)
    assert within(one, 103, course.load(None)) == {}


def test_every_experiment_has_bands():
    for one in EXPERIMENTS:
        assert one.bands, one.name
        assert all(low <= high for low, high in one.bands.values())
