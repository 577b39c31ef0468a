"""Writes docs/methods.md and docs/plots from the docstrings of every public method.

    python docs/generate.py

A method's docstring opens with its formula, or a line and then its formula, and has a paragraph
"Source: …". The tests named beside it are the test files that speak of it. `tests/test_docs.py` checks that
what is written is up to date.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path[:0] = [str(ROOT), str(DOCS)]

from typeset import typeset  # noqa: E402

from fastnet import init, layers, losses, optim, preprocess, schedules, train  # noqa: E402
from fastnet.configured import is_registered  # noqa: E402
from fastnet.optim.averaging import Averaging  # noqa: E402

HEAD = """\
# Methods

Written by `python docs/generate.py` from the docstrings, which say more: shapes, defaults, deviations from
the sources. Change those. In formulas, names of arguments and functions are upright, symbols italic.

Beside the tests named here, which speak of a method by its name, all ops are under the tests that find
them by themselves: gradients against central differences (`layers/test_gradients.py`), every backend
against the reference (`backends/test_agreement.py`) and the contract of kernels
(`backends/test_contract.py`).
"""


@dataclass(frozen=True)
class Family:
    """Methods of one kind: where they are, their base, and which tests are about them."""

    title: str
    module: ModuleType
    base: type
    tests: str  # paths of test files that begin so come first
    only: tuple[type, ...] = ()  # those that are methods, if not all are

    def methods(self) -> dict[type, list[str]]:
        """The public classes, each with its names."""
        found: dict[type, list[str]] = {}
        for name in sorted(self.module.__all__, key=str.lower):
            value = getattr(self.module, name)
            if isinstance(value, type) and issubclass(value, self.base) and is_registered(value):
                if self.only and value not in self.only:
                    continue
                found.setdefault(value, []).append(name)
        return found


FAMILIES = (
    Family("Layers and activations", layers, layers.Layer, "layers/"),
    Family("Preprocessing", preprocess, layers.Layer, "preprocess/"),
    Family("Losses", losses, losses.Loss, "losses/"),
    Family("Optimizers", optim, optim.Optimizer, "optim/"),
    Family("Averages of parameters", optim, Averaging, "train/test_additions"),
    Family("Schedules", schedules, schedules.Schedule, "schedules/"),
    Family(
        "Callbacks",
        train,
        train.Callback,
        "train/test_callbacks",
        (train.EarlyStopping, train.ReduceLROnPlateau),
    ),
    Family("Initialisers", init, init.Initializer, "test_init"),
)
PLOTS = {"Layers and activations": "activations", "Schedules": "schedules"}
PICTURES = (*PLOTS.values(), "landscape")  # and that of docs/second-order.md


class Missing(Exception):
    """A method whose docstring lacks something, or that no test speaks of."""


def paragraphs(method: type) -> list[str]:
    """The paragraphs of a class's own docstring, each on one line; one may begin with Source."""
    text = inspect.cleandoc(vars(method).get("__doc__") or "")
    parts = re.split(r"\n\s*\n|\n(?=Sources?:)", text)
    return [" ".join(part.split()) for part in parts]


def formula(method: type) -> str:
    """The first paragraph, or the second where that has the formula."""
    for part in paragraphs(method)[:2]:
        if re.search(r"[=←]|\b[NU]\(", part):
            return part
    raise Missing(f"{method.__name__}: its docstring does not open with a formula")


def source(method: type) -> str:
    """What follows Source: in the docstring."""
    for part in paragraphs(method):
        found = re.match(r"Sources?: (.+)", part)
        if found:
            return found[1][0].upper() + found[1][1:]
    raise Missing(f"{method.__name__}: its docstring has no paragraph that begins with Source:")


def texts() -> dict[str, str]:
    """The test files by path."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return {path.relative_to(ROOT / "tests").as_posix(): path.read_text("utf-8") for path in files}


def tests(names: list[str], family: Family, files: dict[str, str]) -> list[str]:
    """The test files that speak of a method: those of its family and peers, else all."""
    spoken = re.compile(rf"\b({'|'.join(names)})\b")
    found = [path for path, text in files.items() if spoken.search(text)]
    close = [path for path in found if path.startswith((family.tests, "peers/"))]
    if not found:
        raise Missing(f"{names[0]}: no test speaks of it")
    return close or found


def table(family: Family, files: dict[str, str]) -> Iterator[str]:
    """The lines of a family's section."""
    yield f"## {family.title}"
    yield ""
    if family.title in PLOTS:
        name = PLOTS[family.title]
        yield f"![{name}](plots/{name}.svg)"
        yield ""
    yield "| method | formula | source | tests |"
    yield "|---|---|---|---|"
    for method, names in family.methods().items():
        cells = [
            ", ".join(f"`{name}`" for name in names),
            typeset(formula(method), frozenset(inspect.signature(method).parameters)),
            source(method),
            ", ".join(
                f"[{path.removesuffix('.py')}](../tests/{path})"
                for path in tests(names, family, files)
            ),
        ]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""


def text() -> str:
    """methods.md; raises an ExceptionGroup that names each method that lacks something."""
    files, lines, missing = texts(), [HEAD], []
    for family in FAMILIES:
        for method, names in family.methods().items():
            for part in (formula, source, lambda m, n=names, f=family: tests(n, f, files)):
                try:
                    part(method)
                except Missing as error:
                    missing.append(error)
    if missing:
        raise ExceptionGroup("docs/methods.md cannot be written", missing)
    for family in FAMILIES:
        lines += table(family, files)
    return "\n".join(lines)


def write_plots(folder: Path) -> None:
    """The plots as SVG files."""
    import plots

    plots.write(folder, *(f.methods() for f in FAMILIES if f.title in PLOTS))


def main() -> None:
    """Write everything."""
    (DOCS / "methods.md").write_text(text(), encoding="utf-8")
    write_plots(DOCS / "plots")


if __name__ == "__main__":
    main()
