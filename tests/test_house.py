"""House rules: which way imports and includes point, what an import loads, docstrings."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import child
import pytest

import fastnet as fn
from fastnet.names import PUBLIC

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "fastnet").rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES
}
TREES = {name: ast.parse(path.read_text("utf-8")) for name, path in MODULES.items()}

# The floors of the house, from the ground up: a part imports from those below its own floor.
FLOORS = [
    ("errors", "formulas.language", "formulas.portable", "names", "plain"),
    ("late",),
    ("configured", "datasets", "formulas.translate", "interrupts", "random", "terminal"),
    ("formulas.derive", "init", "op", "parallel", "schedules"),
    ("builder", "data", "distributed", "files", "formulas"),  # formulas: what writes them
    ("parameter",),
    ("optim", "tape"),
    ("layers",),
    ("losses", "plan", "preprocess"),
    ("backends", "export", "onnx", "tangents"),
    ("interop.sklearn_out", "interop.torch_table"),
    ("model",),
    ("curvature",),
    ("int8", "interop", "plot", "tabular"),
    ("train",),
    ("check", "recipes"),
    ("sklearn",),
    ("",),  # fastnet itself: the public names
    ("cli", "examples"),
    ("__main__",),
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}

# Imports within functions, so that what is heavy is loaded when it is first used.
LATE = {
    ("fastnet.errors", "difflib"),
    ("fastnet.errors", "pathlib"),
    ("fastnet.backends.c.extension", "hashlib"),
    ("fastnet.backends.c.extension", "importlib.metadata"),
    ("fastnet.backends.c.extension", "pathlib"),
    ("fastnet.layers.function", "hashlib"),
    ("fastnet.layers.pointwise", "fastnet.formulas.derive"),
    ("fastnet.model.head", "fastnet.layers.tree_search"),
    ("fastnet.model.runtime", "fastnet.backends.rows"),
    ("fastnet.model.runtime", "fastnet.optim.averaging"),
    ("fastnet.model.sequential", "fastnet.model.c_export"),
    ("fastnet.model.sequential", "fastnet.model.curvature"),
    ("fastnet.model.sequential", "fastnet.model.exported"),
    ("fastnet.model.sequential", "fastnet.model.jacobian"),
    ("fastnet.model.sequential", "fastnet.model.matrices"),
    ("fastnet.model.sequential", "fastnet.model.saliency"),
    ("fastnet.model.sequential", "fastnet.model.saved"),
    ("fastnet.model.sequential", "fastnet.model.summary"),
    ("fastnet.model.sequential", "fastnet.optim.gradients"),
    ("fastnet.model.sequential", "fastnet.plan.update"),
    ("fastnet.model.structure", "fastnet.layers.hierarchical"),
    ("fastnet.model.structure", "fastnet.losses.decision"),
    ("fastnet.plan.fusion", "fastnet.layers.bfloat16_linear"),
    ("fastnet.plan.fusion", "fastnet.layers.relu_dropout"),
    ("fastnet.plan.fusion", "fastnet.layers.sparse_linear"),
    ("fastnet.model.summary", "html"),
    ("fastnet.model.c_export", "fastnet.export.c"),
    ("fastnet.model.c_export", "fastnet.export.parts"),
    ("fastnet.model.c_export", "fastnet.export.program"),
    ("fastnet.model.c_export", "fastnet.export.training"),
    ("fastnet.curvature.eigen", "scipy.sparse.linalg"),
    ("fastnet.examples.course.picture", "cycler"),
    ("fastnet.examples.course.picture", "matplotlib"),
    ("fastnet.examples.learning_to_learn", "matplotlib"),
    ("fastnet.examples.mnist", "mpi4py"),
    ("fastnet.files.tensors", "hashlib"),
    ("fastnet.files.tensors", "safetensors"),
    ("fastnet.files.tensors", "safetensors.numpy"),
    ("fastnet.interop.keras_in", "keras"),
    ("fastnet.interop.sklearn_out", "sklearn.preprocessing"),
    ("fastnet.interop.sklearn_out", "sklearn"),
    ("fastnet.interop.torch_table", "torch"),
    ("fastnet.layers.centers", "sklearn.cluster"),
    ("fastnet.model.curvature", "fastnet.tangents.program"),
    ("fastnet.model.exported", "fastnet.interop.sklearn_out"),
    ("fastnet.model.exported", "fastnet.interop.torch_table"),
    ("fastnet.model.exported", "fastnet.onnx.writing"),
    ("fastnet.plan.records", "mmap"),
    ("fastnet.train.callbacks.files", "tensorboardX"),
    ("fastnet.train.trainer", "fastnet.train.full_batch"),
    ("fastnet.train.progress", "tqdm"),
    ("fastnet.train.full_batch.of_scipy", "scipy.optimize"),
    ("fastnet.train.history", "pandas"),
    ("fastnet.plot.figures", "fastnet.plot.picture"),
    ("fastnet.cli.progress", "tqdm"),
    ("fastnet.examples.saddle", "matplotlib"),
    ("fastnet.examples.saddle", "matplotlib.figure"),
    ("fastnet.cli.reading", "pandas"),
    ("fastnet.cli.report", "sklearn.inspection"),
    ("fastnet.cli.report", "sklearn.metrics"),
    ("fastnet.cli.train", "fastnet.sklearn"),
}
# Modules that import by a name in a string, for the same reason.
DYNAMIC = {
    "fastnet.late",
    "fastnet.backends.registry",
    "fastnet.backends.c.extension",
    "fastnet.backends.numba.backend",
    "fastnet.backends.cuda.backend",
    "fastnet.cli.main",
    "fastnet.examples.course.found",
}


def part(module):
    """Which part of the package a module is: "layers" for fastnet.layers.linear, or what a floor names."""
    inner = module.partition(".")[2]
    return inner if inner in FLOOR else inner.partition(".")[0]


def imported(module, node):
    """The modules that an import statement loads, by their full names."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names}
    assert node.level == 0, f"{module}: a relative import"
    deeper = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in MODULES else node.module for name in deeper}


def imports(module):
    nodes = ast.walk(TREES[module])
    found = [imported(module, n) for n in nodes if isinstance(n, (ast.Import, ast.ImportFrom))]
    return set().union(*found)


def ours(module):
    return {name for name in imports(module) if name.split(".")[0] == "fastnet"}


def test_every_part_has_its_floor():
    assert {part(module) for module in MODULES} == FLOOR.keys()


def test_imports_point_down():
    pairs = [(module, other) for module in MODULES for other in ours(module)]
    assert len(pairs) > 100
    wrong = [(a, b) for a, b in pairs if part(a) != part(b) and FLOOR[part(b)] >= FLOOR[part(a)]]
    assert wrong == []


# A C file includes from its own folder of csrc/ and those before it.
FOLDERS = ["engine", "lib", "generated", "products", "kernels"]


def test_includes_point_one_way():
    csrc = ROOT / "csrc"
    files = [*csrc.rglob("*.c"), *csrc.rglob("*.h")]
    assert {path.relative_to(csrc).parts[0] for path in files} == set(FOLDERS)
    wrong, count = [], 0
    for path in files:
        for name in re.findall(r'#include "(.+)"', path.read_text("utf-8")):
            count += 1
            folders = FOLDERS[: FOLDERS.index(path.parent.name) + 1]
            if name.partition("/")[0] not in folders or not (csrc / name).exists():
                wrong.append((path.name, name))
    assert count > 50 and wrong == []


def test_no_import_goes_round_in_a_circle():
    graph = {module: ours(module) - {module} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) == len(MODULES)


def test_imports_within_functions_are_those_of_the_table():
    late, dynamic = set(), set()
    for module, tree in TREES.items():
        functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda))]
        for node in (inner for function in functions for inner in ast.walk(function)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                late |= {(module, name) for name in imported(module, node)}
            if isinstance(node, (ast.Attribute, ast.Name)) and ast.unparse(node).endswith(
                ("import_module", "__import__")
            ):
                dynamic.add(module)
    assert late == LATE and dynamic == DYNAMIC


def test_private_names_stay_in_their_module():
    taken = [
        (module, alias.name)
        for module, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and part(str(node.module))
        for alias in node.names
        if alias.name.startswith("_")
    ]
    assert taken == []


IMPORT = """
import json, sys
before = set(sys.modules)
import numpy
import fastnet
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_importing_fastnet_loads_numpy_and_the_standard_library_alone():
    loaded = child.run(IMPORT)
    roots = {name.split(".")[0] for name in loaded}
    assert {"numpy", "fastnet"} <= roots
    assert roots - sys.stdlib_module_names == {"numpy", "fastnet"}
    assert {"fastnet._native", "fastnet.datasets"} & set(loaded) == set()


PREDICTING = """
import json, sys
import numpy as np
before = set(sys.modules)
import fastnet as fn

model = fn.load(sys.argv[2]) if sys.argv[2:] else fn.Sequential(fn.Linear(4, 2), fn.ReLU())
model.to(sys.argv[1]).predict(np.zeros((1, 4), np.float32))
print(json.dumps(sorted(set(sys.modules) - before)))
"""
UNNEEDED = {
    "layers.hierarchical",
    "layers.dropout",
    "losses.regression",
    "model.c_export",
    "optim.sgd",
}
UNNEEDED |= {
    "model.curvature",
    "model.jacobian",
    "model.matrices",
    "tangents",
    "backends.rows",
    "curvature",
}
UNNEEDED |= {"schedules.base", "preprocess.base", "train", "formulas.translate", "data.folds"}


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize("name", ["c", "reference"])
def test_a_program_that_predicts_loads_what_it_needs(name, saved, tmp_path):
    if reason := fn.backends()[name].reason:
        pytest.skip(reason)
    path = tmp_path / "net.safetensors"
    fn.Sequential(fn.Linear(4, 2), fn.ReLU()).save(path)
    loaded = set(child.run(PREDICTING, name, *([path] if saved else [])))
    assert {"fastnet.layers.linear", "fastnet.model.sequential"} <= loaded
    assert {f"fastnet.{module}" for module in UNNEEDED} & loaded == set()
    # In a checkout the C backend looks for the extension, and whether its sources are these.
    assert saved or name == "c" or "pathlib" not in loaded


TOUCHED = """
import json, sys
import fastnet as fn
from fastnet import configured

first = fn.from_config({"type": "StepLR", "lr": 0.1, "step_size": 3})
own = type("Adam", (fn.Optimizer,), {})
try:
    fn.register(own)
except fn.errors.HyperparameterError as error:
    told = str(error)
from fastnet.layers import *
import fastnet.layers.pointwise
named = {name: sorted(set(sys.modules[name].__all__) - set(dir(sys.modules[name])))
         for name in ("fastnet", "fastnet.layers", "fastnet.losses", "fastnet.optim")}
print(json.dumps([repr(first), told, callable(elementwise), named, hasattr(fn, "Nope")]))
"""


def test_late_names_are_there_like_others():
    first, told, callable_, named, unknown = child.run(TOUCHED)
    assert first == "StepLR(0.1, 3)" and "fastnet.optim.adam.Adam has this name" in told
    assert callable_ and not any(named.values()) and not unknown
    with pytest.raises(ImportError, match="cannot import name 'Nope'"):
        exec("from fastnet.losses import Nope")


INTERRUPTED = """
import json
import fastnet as fn
from fastnet.init.scaled import KaimingUniform
from fastnet.layers.base import Layer

def stop(cls, **_):
    del Layer.__init_subclass__
    raise KeyboardInterrupt

Layer.__init_subclass__ = classmethod(stop)
stopped = False
try:
    fn.Linear
except KeyboardInterrupt:
    stopped = True
made = fn.from_config({"type": "Linear", "in_features": 3, "out_features": 2})
print(json.dumps([stopped, fn.Sequential(made, seed=0).predict([[0.0] * 3]).shape]))
"""


def test_a_name_loads_after_ctrl_c_has_stopped_its_module():
    assert child.run(INTERRUPTED) == [True, [1, 2]]


AT_ONCE = """
import json, sys, threading
import numpy as np
import fastnet as fn

sys.setswitchinterval(1e-6)
errors = []

def work(first):
    try:
        for name in fn.__all__[first::4]:
            getattr(fn, name)
        model = fn.Sequential(fn.Linear(4, 3), fn.ReLU(), fn.Dropout(0.1), backend="reference", seed=1)
        fn.Trainer(model, fn.MSELoss(), fn.Adam()).fit(np.ones((8, 4)), np.ones((8, 3)), verbose=0)
    except BaseException as error:
        errors.append(repr(error))

threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps(errors))
"""


def test_threads_may_load_names_at_once():
    assert child.run(AT_ONCE) == []


def test_no_module_hides_a_late_name():
    """Python binds a module to its name in the package, where `__getattr__` then is not asked."""
    for path in (ROOT / "fastnet").rglob("__init__.py"):
        folder = ".".join(path.parent.relative_to(ROOT).parts)
        names = set(getattr(sys.modules.get(folder), "__all__", ()))
        inside = {p.stem for p in path.parent.iterdir() if p.suffix == ".py" or p.is_dir()}
        hidden = {name for name in names & inside if PUBLIC.get(name, name) != name}
        assert hidden <= {"backends"}, folder  # fastnet/__init__.py binds it at once


def test_the_table_of_late_names_is_up_to_date(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "csrc"))
    import late_names

    text = (ROOT / "fastnet" / "names.py").read_text("utf-8")
    assert text == late_names.text() == late_names.first(), "run python csrc/late_names.py"


DEFERRED = """
import json, sys
import numpy
before = set(sys.modules)
import fastnet, fastnet.backends.c.backend
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_what_few_programs_need_loads_with_its_first_use():
    loaded = set(child.run(DEFERRED))
    assert {"importlib.metadata", "hashlib", "html", "difflib", "email"} & loaded == set()


WORK = """
import json, sys
import numpy as np
import fastnet as fn

x, y = np.random.default_rng(0).normal(size=(8, 4)), np.arange(8) % 2
model = fn.Sequential(fn.Linear(4, 2), fn.BatchNorm1d(2), backend=sys.argv[1], seed=0)
fn.Trainer(model, fn.CrossEntropyLoss()).fit(x, y, verbose=1)
fn.datasets.digits()
model.predict(x)
print(json.dumps(sorted(sys.modules)))
"""
HEAVY = {"numba", "llvmlite", "cffi", "scipy", "sklearn", "torch", "matplotlib", "tqdm"}


@pytest.mark.parametrize("name", ["c", "reference"])
def test_training_loads_the_backend_that_was_asked_for_alone(name):
    if reason := fn.backends()[name].reason:
        pytest.skip(reason)
    modules = child.run(WORK, name)
    assert {module.split(".")[0] for module in modules} & HEAVY == set()
    assert ("fastnet._native" in modules) == (name == "c")


def test_every_module_says_what_it_is():
    assert [module for module, tree in TREES.items() if not ast.get_docstring(tree)] == []


@pytest.mark.parametrize("name", sorted({*fn.__all__} - {"__version__"}))
def test_a_public_name_says_what_it_is(name):
    value = getattr(fn, name)
    if not isinstance(value, type):
        assert value.__doc__
        return
    assert vars(value).get("__doc__")  # its own, not its base's
    methods = {n: f for n, f in vars(value).items() if callable(f) and not n.startswith("_")}
    assert [n for n, f in methods.items() if not f.__doc__] == []


def test_all_public_names_are_listed():
    assert all(getattr(fn, name) for name in fn.__all__)  # some come with their first use
    public = {name for name in vars(fn) if not name.startswith("_")}
    submodules = {name for name in public if f"fastnet.{name}" in sys.modules}
    assert public - submodules == set(fn.__all__) - submodules - {"__version__"}


# What an assert may call: under `python -O` it is not run, and nothing else may depend on it.
HARMLESS = {"isinstance", "issubclass", "len"}


def test_no_assert_has_an_effect():
    asserts = [(m, n) for m, t in TREES.items() for n in ast.walk(t) if isinstance(n, ast.Assert)]
    assert len(asserts) > 10
    changing = ast.Await, ast.Yield, ast.YieldFrom, ast.NamedExpr
    wrong = [
        f"{module}: {ast.unparse(node)}"
        for module, node in asserts
        for inner in ast.walk(node)
        if isinstance(inner, changing)
        or (isinstance(inner, ast.Call) and ast.unparse(inner.func) not in HARMLESS)
    ]
    assert wrong == []


def test_the_version_is_written_once():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "version" in config["project"]["dynamic"]
    source = config["tool"]["scikit-build"]["metadata"]["version"]["input"]
    assert f'\n__version__ = "{fn.__version__}"\n' in (ROOT / source).read_text("utf-8")
