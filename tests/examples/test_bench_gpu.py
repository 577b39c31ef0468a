"""Benchmarks on a GPU, as far as they can be tried without one."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import pytest
from test_bench import run

needs_torch = pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="needs PyTorch")


def script(code: str, *, env: dict[str, str] | None = None) -> str:
    """What a script prints that imports from the benchmarks' folder."""
    done = run("-c", f"import sys; sys.path.insert(0, 'bench')\n{code}", env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


# A net whose graph of an epoch has three minibatches: no multiple of the steps that are compared.
SAME_WORK = """
from measure import pin
from contenders import training
from contenders.workloads import Workload
from gpu import pytorch
net = Workload("deep", (7, 5, 4, 3), 6, batchnorm=True, dropout=0.2, batches=3)
found = training.check_same_work(net, ["reference"], 5, pytorch.available("cpu"))
print(len(found), max(found.values()))
"""


@needs_torch
def test_pytorchs_ways_on_a_gpu_do_the_same_work_as_fastnet():
    count, worst = script(SAME_WORK).split()
    assert int(count) == 5 and float(worst) < 1e-5


CAPTURE = """
from measure import pin
from gpu import pytorch
import torch
from unittest import mock
from unittest.mock import call
happened, where = [], ["current"]

class Entered:
    def __init__(self, name): self.name = name
    def __enter__(self): where.append(self.name)
    def __exit__(self, *error): where.pop()

cuda = mock.Mock(spec_set=["Stream", "stream", "current_stream", "graph", "CUDAGraph"])
cuda.Stream = mock.create_autospec(torch.cuda.Stream)
cuda.stream = mock.create_autospec(torch.cuda.stream, side_effect=lambda s: Entered("beside"))
cuda.current_stream = mock.create_autospec(torch.cuda.current_stream)
cuda.CUDAGraph = mock.create_autospec(torch.cuda.CUDAGraph)
cuda.graph = mock.create_autospec(torch.cuda.graph, side_effect=lambda g: Entered("graph"))
with mock.patch.object(torch, "cuda", cuda):
    replay = pytorch.captured(lambda: happened.append(where[-1]), "cuda")
beside, current = cuda.Stream.return_value, cuda.current_stream.return_value
assert beside.wait_stream.mock_calls == [call(current)]
assert current.wait_stream.mock_calls == [call(beside)]
graph = cuda.CUDAGraph.return_value
assert cuda.graph.mock_calls == [call(graph)] and replay is graph.replay
print(*happened)
"""


@needs_torch
def test_a_graph_is_captured_after_warming_up_on_another_stream():
    assert script(CAPTURE).split() == ["beside"] * 3 + ["graph"]


@pytest.mark.slow
@needs_torch
def test_all_that_is_measured_on_a_gpu_runs_in_the_simulator(tmp_path: Path):
    pytest.importorskip("numba")
    path, env = tmp_path / "results.json", {"NUMBA_ENABLE_CUDASIM": "1"}
    chosen = ("--only", "cuda,sanitizer", "--workloads", "mnist", "--seconds", "0.05")
    done = run("bench/run.py", *chosen, "-o", str(path), env=env)
    assert done.returncode == 0, done.stderr
    found = json.loads(path.read_text(encoding="utf-8"))["cuda"]
    assert found["simulator"] and found["warned"] == []
    assert {"fastnet cuda", "copy"} <= found["update"]["times"].keys()
    for case in found["cases"].values():
        assert case["left_out"] == {} and case["parts"].keys() >= {"GEMM", "Adam", "softmax"}
        assert {"fastnet cuda", "PyTorch graph", "roofline"} <= case["times"].keys()
    done = run("bench/targets.py", "--from", str(path))
    assert done.returncode == 0 and "0 met, 0 missed, 2 not measured" in done.stdout
    done = run("bench/report.py", "--from", str(path), "--to", str(tmp_path))
    assert done.returncode == 0 and "its times say nothing" in done.stdout, done.stderr


def test_the_simulator_gives_no_figures():
    pytest.importorskip("numba")
    code = "from measure import machine; print('cuda' in machine.backends())"
    assert script(code, env={"NUMBA_ENABLE_CUDASIM": "1"}) == "False\n"
    done = run("bench/gpu/steps.py", "5", "mnist", env={"NUMBA_ENABLE_CUDASIM": "1"})
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout).keys() == {"left_out"}


def on_a_gpu(ours: float = 1.0, share: float = 0.9, errors: int = 0) -> dict[str, Any]:
    """A run in which fastnet takes `ours` seconds a step, PyTorch 3.2 eagerly and 1.1 by graphs."""
    times = {
        "fastnet cuda": [ours] * 3,
        "PyTorch eager": [4.0] * 3,
        "PyTorch eager fused": [3.2] * 3,
        "PyTorch graph": [2.0] * 3,
        "PyTorch graph of an epoch": [1.1] * 3,
        "roofline": [0.1] * 3,
    }
    case = {"title": "a net", "times": times, "parts": {"GEMM": 0.1}, "same_work": {"a": 1e-7}}
    case["left_out"] = {}
    update = {"fastnet cuda": [1.0] * 3, "copy": [share] * 3}
    cuda = {
        "device": "a GPU", "simulator": False, "date": "now", "command": "c", "machine": "its host",
        "versions": {}, "warned": ["of graphs"],
        "cases": {"mnist, batch 32": case, "wide, batch 4096": case},
        "update": {"elements": 1000, "times": update},
    }  # fmt: skip
    check = {"errors": errors, "tests": 9, "clean": not errors, "status": 0, "report": []}
    head = {"date": "now", "command": "c", "machine": "m", "pinned": True, "versions": {}}
    return head | {"cuda": cuda, "sanitizer": {"racecheck": check}}


def verdicts(tmp_path: Path, results: dict[str, Any]) -> dict[str, bool]:
    """Whether each target is met."""
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    done = run("bench/targets.py", "--from", str(path))
    lines = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| cuda")]
    lines += [line.split(" | ") for line in done.stdout.splitlines() if "| sanitizer" in line]
    assert done.returncode == int(any("MISSED" in line for line in lines)), done.stderr
    return {line[0].removeprefix("| "): "MISSED" not in line for line in lines}


EAGER = "cuda mnist, batch 32: times as fast as the fastest PyTorch eager"
GRAPH = "cuda mnist, batch 32: times as fast as the fastest PyTorch graph"
WIDE = "cuda wide, batch 4096: times as fast as the fastest PyTorch"
COPY, RACES = "cuda update: share of the copy bandwidth", "sanitizer racecheck"


@pytest.mark.parametrize(
    ("results", "missed"),
    [
        (on_a_gpu(), set()),
        (on_a_gpu(ours=1.1), {EAGER}),
        (on_a_gpu(ours=1.15), {EAGER, GRAPH}),
        (on_a_gpu(ours=1.17), {EAGER, GRAPH, WIDE}),
        (on_a_gpu(share=0.8), {COPY}),
        (on_a_gpu(errors=1), {RACES}),
    ],
)
def test_targets_on_a_gpu_are_met_or_missed(tmp_path, results, missed):
    found = verdicts(tmp_path, results)
    assert found == {name: name not in missed for name in (EAGER, GRAPH, WIDE, COPY, RACES)}


def test_the_simulators_times_meet_no_target(tmp_path):
    results = on_a_gpu()
    results["cuda"]["simulator"] = True
    assert verdicts(tmp_path, results).keys() == {"cuda", RACES}


def test_a_net_that_does_not_run_is_missed(tmp_path):
    results = on_a_gpu()
    broken = {"title": "t", "times": {}, "parts": {}, "same_work": {}, "left_out": {"any": "why"}}
    results["cuda"]["cases"]["mnist, batch 32"] = broken
    assert verdicts(tmp_path, results) == {
        "cuda mnist, batch 32": False, WIDE: True, COPY: True, RACES: True,
    }  # fmt: skip


def report(folder: Path, results: dict[str, Any]) -> str:
    """RESULTS.md after a report of these results into a folder."""
    path = folder / "run.json"
    path.write_text(json.dumps(results), encoding="utf-8")
    done = run("bench/report.py", "--from", str(path), "--to", str(folder))
    assert done.returncode == 0, done.stderr
    return (folder / "RESULTS.md").read_text("utf-8")


def test_a_report_keeps_what_another_machine_measured(tmp_path: Path):
    head = on_a_gpu() | {"machine": "the CPU's", "cost": {}}
    without = {"left_out": "there is no GPU"}
    none = {**head, "cuda": without, "sanitizer": without}
    written = report(tmp_path, none)
    assert "Not measured: there is no GPU" in written
    written = report(tmp_path, on_a_gpu() | {"machine": "its host"})
    assert "a GPU" in written and "the CPU's; one core" in written and "## Cost" in written
    assert report(tmp_path, none) == written
    assert report(tmp_path, {k: v for k, v in none.items() if k != "cost"}) == written
    newer = on_a_gpu()
    newer["cuda"]["device"] = "another GPU"
    assert "fastnet warned: of graphs." in written
    assert "another GPU" not in written and "another GPU" in report(tmp_path, newer)


def test_a_comparison_sees_a_gpus_ratios(tmp_path: Path):
    files = []
    for name, ours in (("old", 1.0), ("new", 1.2)):
        files.append(str(tmp_path / name))
        Path(files[-1]).write_text(json.dumps(on_a_gpu(ours=ours)), encoding="utf-8")
    done = run("bench/compare.py", *files)
    assert done.returncode == 1 and GRAPH in done.stdout, done.stdout + done.stderr


FAKE = """#!/bin/sh
echo "$@" >&2
cat "$SAID"
exit "$STATUS"
"""
CHECK = "import json; from gpu import sanitizer; print(json.dumps(sanitizer.run('racecheck')))"
CLEAN = "========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)\n"


@pytest.mark.parametrize(
    ("said", "status", "errors", "clean"),
    [
        (f"9 passed in 3 s\n{CLEAN}", 0, 0, True),
        (f"9 passed in 3 s\n{CLEAN.replace('0', '2', 1)}", 86, 2, False),
        (f"9 passed in 3 s\n{CLEAN.replace('0', '2', 1)}", 0, 2, False),  # warnings alone
        (f"1 failed, 8 passed in 3 s\n{CLEAN}", 1, 0, False),
        ("9 passed in 3 s\n========= Error: no instrumented API call\n", 0, None, False),
        (f"9 passed in 3 s\n{CLEAN}", 139, 0, False),  # it crashed at the end
        (CLEAN, 0, 0, False),  # of no tests at all
    ],
)
def test_the_sanitizer_is_believed_where_it_surely_looked(tmp_path, said, status, errors, clean):
    program = tmp_path / "compute-sanitizer"
    program.write_text(FAKE, encoding="utf-8")
    program.chmod(0o755)
    (tmp_path / "said").write_text(said, encoding="utf-8")
    env = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "STATUS": str(status)}
    found = json.loads(script(CHECK, env=env | {"SAID": str(tmp_path / "said")}))
    assert (found["errors"], found["clean"]) == (errors, clean)
    assert clean or found["report"]


def test_the_sanitizer_is_not_run_without_a_device():
    done = run("bench/gpu/sanitizer.py", env={"NUMBA_ENABLE_CUDASIM": "1"})
    assert done.returncode == 1 and done.stdout.startswith("not run: "), done.stderr
