"""The registry: what is there, what `auto` takes, and what happens where something is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import child
import numpy as np
import pytest

import fastnet as fn
from fastnet.backends import registry
from fastnet.backends.base import Backend

PACKAGE = Path(fn.__file__).parent
HINTS = {
    "c": "install a C compiler",
    "numba": "pip install 'fastnet-engine[numba]'",
    "cuda": "pip install 'fastnet-engine[cuda12]'",
}


def net(backend):
    return fn.Sequential(fn.Linear(2, 2), backend=backend)


def test_backends_tells_of_each_whether_it_can_run():
    found = fn.backends()
    assert list(found) == ["c", "numba", "reference", "cuda"]
    for name, info in found.items():
        assert info.name == name
        assert info.available == (info.reason is None)
        if not info.available:
            assert repr(info) == f"not available: {info.reason}" and info.bfloat16 is None
        elif info.bfloat16:
            assert repr(info) == f"available, bfloat16 by {info.bfloat16}"
        else:
            assert repr(info) == "available"
    assert found["reference"].available and found["reference"].bfloat16 is None


@pytest.mark.skipif(not fn.backends()["c"].available, reason="needs the backend c")
def test_backends_tells_which_instructions_multiply_bfloat16():
    c = registry.get("c")
    before = c.level()
    try:
        for level, name in enumerate(c.levels()):
            c.set_level(level)
            found = fn.backends()["c"].bfloat16
            wanted = {"x86-64-v4-bf16": "AVX512_BF16", "aarch64-bf16": "BFDOT"}
            assert found == wanted.get(name)
    finally:
        c.set_level(before)


def test_a_model_runs_on_the_backend_of_that_name(backend):
    model = net(backend)
    assert model.backend == backend == registry.get(backend).name
    assert registry.get(backend) is registry.get(backend)


@pytest.mark.parametrize("name", ["C", "CUDA", "", None, 3, b"c", ["c"]])
def test_an_unknown_backend_is_refused(name):
    with pytest.raises(fn.BackendUnavailable) as caught:
        net(name)
    message = str(caught.value)
    assert repr(name) in message
    assert "expected one of 'auto', 'c', 'numba', 'reference', 'cuda'" in message


class Fake(Backend):
    """A backend that is there."""

    def __init__(self, name):
        self.name = name


@pytest.fixture
def missing(monkeypatch):
    """A function that makes backends of these names missing, and the warning new."""

    def replace(*names):
        found = {n: f"no {n} here" if n in names else Fake(n) for n in registry.NAMES}
        monkeypatch.setattr(registry, "_found", found)
        monkeypatch.setattr(registry, "_warned", False)

    return replace


@pytest.mark.parametrize(
    ("without", "taken"), [((), "c"), (("numba",), "c"), (("c",), "numba")], ids=str
)
def test_auto_takes_the_first_that_is_there(missing, without, taken):
    missing(*without)
    assert registry.get("auto").name == taken  # and warns of nothing, as warnings are errors here


def test_auto_falls_back_to_the_reference_with_one_warning(missing):
    missing("c", "numba")
    with pytest.warns(UserWarning, match=r"slow \(c: no c here; numba: no numba here\)") as caught:
        names = {registry.get("auto").name for _ in range(3)}
    assert names == {"reference"} and len(caught) == 1


def test_the_reference_by_name_warns_of_nothing(missing):
    missing("c", "numba")
    assert registry.get("reference").name == "reference"


def test_a_missing_backend_is_refused_by_name_where_the_model_is_made(missing):
    missing("c")
    with pytest.raises(fn.BackendUnavailable, match=r"^backend 'c' is not available: no c here$"):
        net("c")


# Real installations, with parts missing or broken.

INSTALLATION = """
import importlib.abc, importlib.metadata, json, sys, warnings

FAULTS = json.loads(sys.argv[1])

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        match FAULTS.get(name):
            case "missing":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
            case "broken":
                raise ImportError(f"{name}: undefined symbol: spam", name=name)

sys.meta_path.insert(0, Finder())
import fastnet as fn

report = {"package": fn.__file__, "reasons": {n: i.reason for n, i in fn.backends().items()}}
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    models = [fn.Sequential(fn.Linear(2, 1), seed=1) for _ in range(2)]
    report["output"] = [model.predict([[1.0, 2.0]]).tolist() for model in models]
    report["auto"] = [model.backend for model in models]
    report["warnings"] = [str(w.message) for w in caught]
report["errors"] = {}
for name in fn.backends():
    try:
        fn.Sequential(fn.ReLU(), backend=name)
    except fn.BackendUnavailable as error:
        report["errors"][name] = str(error)
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The package with no C sources around it and without its extension, as in a pure wheel."""
    root = tmp_path_factory.mktemp("bare")
    ignored = shutil.ignore_patterns("_native*", "__pycache__")
    shutil.copytree(PACKAGE, root / "fastnet", ignore=ignored)
    return root


@pytest.mark.parametrize(
    ("faults", "gone"),
    [
        ({"fastnet._native": "missing", "numba": "missing"}, {"c", "numba"}),
        ({"fastnet._native": "missing", "llvmlite": "missing"}, {"c", "numba"}),
        ({"fastnet._native": "missing", "_cffi_backend": "missing"}, {"c", "numba"}),
        ({"fastnet._native": "broken", "numba": "broken"}, {"c", "numba"}),
        ({"fastnet._native": "missing"}, {"c"}),
    ],
    ids=lambda one: str(sorted(one)),
)
def test_an_installation_where_parts_are_missing(bare, faults, gone, monkeypatch):
    if "numba" not in gone:
        pytest.importorskip("numba")
    monkeypatch.delenv("NUMBA_ENABLE_CUDASIM", raising=False)
    faults, chosen, gone = {**faults, "numba_cuda": "missing"}, gone, gone | {"cuda"}
    report = child.run(INSTALLATION, json.dumps(faults), path=(bare,))
    assert report["package"].startswith(str(bare))
    reasons = report["reasons"]
    assert {name for name, reason in reasons.items() if reason is not None} == gone
    assert report["errors"] == {n: f"backend {n!r} is not available: {reasons[n]}" for n in gone}
    for name in gone:
        assert "\n" not in reasons[name]
        hint = "undefined symbol: spam" if faults.get(name) == "broken" else HINTS[name]
        assert hint in reasons[name]
    if chosen == {"c"}:
        assert report["auto"] == ["numba"] * 2 and not report["warnings"]
    else:
        assert report["auto"] == ["reference"] * 2
        assert len(report["warnings"]) == 1
        assert all(reasons[name] in report["warnings"][0] for name in chosen)
    twin = fn.Sequential(fn.Linear(2, 1), seed=1, backend="reference")
    np.testing.assert_allclose(report["output"], [twin.predict([[1.0, 2.0]])] * 2, rtol=1e-6)
