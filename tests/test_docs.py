"""docs/methods.md and its plots are what docs/generate.py writes, for every method that there is."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
WRITTEN = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "bench/README.md")),
    *sorted(DOCS.glob("*.md")),
]


@pytest.fixture
def generate(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    for name in ("generate", "plots", "typeset"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import generate

    yield generate
    for name in ("generate", "plots", "typeset"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_the_tables_are_up_to_date(generate):
    assert (DOCS / "methods.md").read_text("utf-8") == generate.text(), (
        "run python docs/generate.py"
    )


def test_every_public_method_has_a_row(generate):
    names = {n for f in generate.FAMILIES for names in f.methods().values() for n in names}
    bases = {family.base.__name__ for family in generate.FAMILIES} | {"CustomLayer"}
    import fastnet as fn

    kinds = tuple(family.base for family in generate.FAMILIES if not family.only)
    public = {
        n for n in fn.__all__ if isinstance(v := getattr(fn, n), type) and issubclass(v, kinds)
    }
    assert public - bases <= names and len(names) > 70
    text = (DOCS / "methods.md").read_text("utf-8")
    assert [n for n in names if f"`{n}`" not in text] == []
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    assert [path for path in linked if not (DOCS / path).is_file()] == []


class NoFormula:
    """A method.

    It has two paragraphs.
    """


def test_a_docstring_without_formula_or_source_is_refused_by_name(generate):
    for part, word in ((generate.formula, "formula"), (generate.source, "Source:")):
        with pytest.raises(generate.Missing, match=f"NoFormula: .*{word}"):
            part(NoFormula)
    family = generate.FAMILIES[0]
    with pytest.raises(generate.Missing, match="Unheard: no test"):
        generate.tests(["Unheard"], family, {"test_a.py": "Unheardof", "layers/test_b.py": ""})


def test_the_tests_of_a_family_and_of_peers_come_before_others(generate):
    files = {"peers/test_a.py": "ReLU()", "layers/test_b.py": "fn.ReLU", "test_c.py": "ReLU"}
    family = generate.FAMILIES[0]
    assert generate.tests(["ReLU"], family, files) == ["peers/test_a.py", "layers/test_b.py"]
    assert generate.tests(["ReLU"], family, {"test_c.py": "ReLU"}) == ["test_c.py"]


@pytest.mark.filterwarnings("ignore:::matplotlib")
def test_the_plots_are_up_to_date(generate, tmp_path):
    if not importlib.util.find_spec("matplotlib"):
        pytest.skip("matplotlib is not installed")
    import matplotlib

    generate.write_plots(tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(f"{name}.svg" for name in generate.PICTURES)
    for name in drawn:
        kept, new = ((folder / name).read_text("utf-8") for folder in (DOCS / "plots", tmp_path))
        titles = [re.findall(r"<text.*?>(.*?)</text>", text) for text in (kept, new)]
        assert titles[0] == titles[1], "run python docs/generate.py"
        assert len(titles[0]) > (10 if name == "landscape.svg" else 50)
        if name == "landscape.svg":  # backends agree within rounding
            continue
        if f"Matplotlib v{matplotlib.__version__}" in kept:  # others draw other numbers
            assert kept == new, "run python docs/generate.py"


def anchors(path):
    """What a link may name in a document: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", path.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if link.startswith("http"):
            continue
        known = anchors(file) if anchor and file.suffix == ".md" and file.exists() else {anchor}
        if not file.exists() or anchor not in known:
            lost.append(link)
    assert lost == []


@pytest.mark.parametrize("name", ["design.md", "internals.md", "tuning.md"])
def test_files_that_the_design_names_exist(name):
    named = set(re.findall(r"`([\w/]+\.(?:py|c|h))`", (DOCS / name).read_text("utf-8")))
    rooms = [ROOT / room for room in ("fastnet", "csrc", "tests", "bench", "docs")]
    there = [path.as_posix() for room in rooms for path in room.rglob("*.*")]
    assert len(named) > 5
    assert [file for file in named if not any(p.endswith(f"/{file}") for p in there)] == []


def test_every_document_is_linked_from_another():
    linked = {
        (path.parent / link.partition("#")[0]).resolve()
        for path in WRITTEN
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8"))
    }
    assert [path.name for path in DOCS.glob("*.md") if path not in linked] == []
