"""The benchmarks still run: each once, untimed."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastnet

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    package = Path(fastnet.__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(package), **(env or {})},
        capture_output=True,
        text=True,
        encoding=(env or {}).get("PYTHONIOENCODING", "utf-8"),
        timeout=600,
        check=False,
    )


# A room of the benchmarks imports from itself and from those before it.
ROOMS = ("measure", "contenders", "gpu", "suites", "tables")


def rooms_imported(path: Path) -> set[str]:
    """The rooms that a file of the benchmarks imports from, within functions too."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    names = [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    names += [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    return {name.split(".")[0] for name in names} & {*ROOMS}


def test_rooms_import_from_those_before_them():
    found = {path.parent.name for path in (ROOT / "bench").glob("*/*.py")}
    assert found == {*ROOMS}
    for number, room in enumerate(ROOMS):
        files = list((ROOT / "bench" / room).glob("*.py"))
        assert {
            path.name for path in files if not rooms_imported(path) <= {*ROOMS[: number + 1]}
        } == set()
    assert rooms_imported(ROOT / "bench" / "run.py") >= {"measure", "contenders", "gpu", "suites"}


@pytest.mark.slow
def test_every_benchmark_runs():
    pytest.importorskip("pytest_benchmark")
    options = ("--benchmark-disable", "-q", "-x", "-p", "no:cacheprovider")
    done = run("-m", "pytest", "bench", *options)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.slow
def test_a_run_a_report_and_a_comparison(tmp_path: Path):
    results = tmp_path / "results.json"
    # Without "many", whose thousand nets take minutes at any number of seconds.
    sections = "fit,loops,calls,steps,predict,cost"
    chosen = ("--only", sections, "--workloads", "xor", "--seconds", "0.05")
    done = run("bench/run.py", *chosen, "-o", str(results))
    assert done.returncode == 0, done.stderr
    if importlib.util.find_spec("matplotlib"):
        (tmp_path / "README.md").write_text((ROOT / "README.md").read_text("utf-8"), "utf-8")
        done = run("bench/report.py", "--from", str(results), "--to", str(tmp_path / "bench"))
        assert done.returncode == 0, done.stderr
        report = (tmp_path / "bench" / "RESULTS.md").read_text("utf-8")
        page = (tmp_path / "README.md").read_text("utf-8")
        for title in ("xor 2-4-1, batch 4", "xor 2-4-1, 4 rows, batch 4, 2 epochs"):
            assert title in report and title in page
        assert (tmp_path / "bench/plots/fit.png").exists()
        assert list(tmp_path.rglob("*.svg")) and list(tmp_path.rglob("*.png"))
    done = run("bench/targets.py", "--from", str(results))
    assert done.returncode in (0, 1) and "| what | target | got |" in done.stdout
    same = run("bench/compare.py", str(results), str(results))
    assert same.returncode == 0 and " 0 fell" in same.stdout


def test_two_versions_take_turns():
    """The same one twice: nothing is built."""
    options = ("--only", "state dict of xor", "--seconds", "0.01", "--python", sys.executable)
    done = run("bench/against.py", "HEAD", *options)
    assert done.returncode == 0, done.stderr
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("| state dict of xor |")]
    assert line.count("µs") == 2


def test_an_unknown_commit_is_refused_in_words():
    done = run("bench/against.py", "no-such-commit")
    assert done.returncode == 1 and "Not measured: git" in done.stdout, done.stdout + done.stderr


ASIDE = """
import sys, time
sys.path.insert(0, "bench")
from measure import timing

class Slow:
    quantum = 1
    def run(self, count):
        with timing.aside():
            time.sleep(0.01)

(times,) = timing.interleave({"slow": Slow()}, 0.0).values()
print(max(times))
"""


def test_what_is_done_aside_does_not_count():
    done = run("-c", ASIDE)
    assert float(done.stdout) < 0.002, done.stdout + done.stderr


@pytest.mark.parametrize(("seconds", "met"), [(1.0, True), (0.9, False)])
def test_a_fit_is_held_to_its_engine(tmp_path, seconds, met):
    case = {"title": "h", "times": {"fastnet": [1.0] * 3, "fastnet engine": [seconds] * 3}}
    loop = {"fastnet engine": [1e-5] * 3, "fastnet train_on_batch": [1.3e-5] * 3}
    found = {"fit": {"housing": case}, "loops": {"housing": {"title": "h", "times": loop}}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    lines = run("bench/targets.py", "--from", str(path)).stdout.splitlines()
    (fit,) = [x for x in lines if x.startswith("| fit housing: time over the engine's |")]
    assert ("MISSED" not in fit) == met
    (step,) = [x for x in lines if x.startswith("| loop housing, fastnet train_on_batch:")]
    assert "| ≤ 4 µs | 3 µs | met |" in step


UNKNOWN = """
import sys
sys.path.insert(0, "bench")
from contenders import method_peers, methods
for family, known in methods.FAMILIES.items():
    for code in getattr(method_peers, family.upper()):
        assert code.split("(")[0] in known, code
    for code in methods.codes(family):
        eval(code, {**vars(methods.fn), "width": 8})
    print(family, len(methods.codes(family)))
"""


def test_pytorchs_kernels_belong_to_methods_that_there_are():
    pytest.importorskip("torch")
    done = run("-W", "ignore", "-c", UNKNOWN)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3


def results(c: float) -> dict[str, Any]:
    """A run in which fastnet took `c` seconds a step."""
    times = {"fastnet c": [c, c, c], "PyTorch": [1.0, 1.0, 1.0]}
    case = {"title": "xor", "times": times, "parts": {}, "same_work": {}, "left_out": {}}
    return {"machine": "m", "versions": {}, "steps": {"xor": case}}


@pytest.mark.parametrize(
    ("after", "falls"), [(0.1, False), (0.11, False), (0.125, True), (0.05, False)]
)
def test_a_comparison_names_what_fell_by_more_than_15_percent(tmp_path, after, falls):
    files = []
    for name, seconds in (("old", 0.1), ("new", after)):
        files.append(str(tmp_path / f"{name}.json"))
        Path(files[-1]).write_text(json.dumps(results(seconds)), encoding="utf-8")
    done = run("bench/compare.py", *files)
    assert done.returncode == int(falls), done.stdout + done.stderr
    assert ("FELL by" in done.stdout) == falls


@pytest.mark.parametrize(("seconds", "met"), [(0.002, True), (0.004, False)])
def test_a_target_is_met_or_missed(tmp_path, seconds, met):
    path = tmp_path / "results.json"
    path.write_text(json.dumps(results(seconds)), encoding="utf-8")
    done = run("bench/targets.py", "--from", str(path))
    wanted = "| xor, fastnet c: times as fast as the fastest PyTorch |"
    (line,) = [x for x in done.stdout.splitlines() if x.startswith(wanted)]
    assert ("MISSED" not in line) == met, done.stdout + done.stderr


def test_targets_say_how_to_run_them():
    done = run("bench/targets.py", "--help")
    assert done.returncode == 0 and "--seconds" in done.stdout


@pytest.mark.parametrize(
    ("section", "case", "ours", "limit", "row"),
    [
        (
            "steps",
            "xor",
            "fastnet c",
            "roofline",
            "xor, fastnet c: times as fast as the fastest PyTorch",
        ),
        (
            "gemm",
            "64×64×64 A·B",
            "fastnet",
            "peak",
            "products A·B, small: times as fast as PyTorch",
        ),
    ],
)
def test_what_is_missed_says_what_the_limit_would_reach(tmp_path, section, case, ours, limit, row):
    """In all rounds, and in the quickest tenth, where PyTorch takes less than half as long."""
    times = {ours: [1.0] * 20, "PyTorch": [1.0] * 17 + [0.4] * 3, limit: [0.002] * 20}
    run_of_it = results(0.01) | {section: {case: {"times": times}}}
    path = tmp_path / "results.json"
    path.write_text(json.dumps(run_of_it), encoding="utf-8")
    done = run("bench/targets.py", "--from", str(path))
    wanted = "| MISSED | the limit of this machine, its roofline, is 500×, 200× undisturbed |"
    (line,) = [x for x in done.stdout.splitlines() if x.startswith(f"| {row} |")]
    assert line.endswith(wanted), done.stdout + done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
@pytest.mark.parametrize("script", ["targets", "report", "compare"])
def test_what_is_printed_has_a_plain_form(tmp_path, script, encoding):
    files = []
    for ours in (0.1, 0.2):
        times = {"fastnet": [ours] * 3, "PyTorch": [1.0] * 3, "peak": [0.01] * 3}
        gemm = {"64×64×64 A·Bᵀ": {"times": times, "flops": 1e6}}
        found = results(ours) | {"gemm": gemm, "date": "d", "command": "c", "pinned": True}
        files.append(tmp_path / f"{ours}.json")
        files[-1].write_text(json.dumps(found), encoding="utf-8")
    options = {
        "targets": ["--from", str(files[0])],
        "report": ["--from", str(files[0]), "--to", str(tmp_path)],
        "compare": [*map(str, files)],
    }[script]
    env = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = run(f"bench/{script}.py", *options, env=env)
    assert "Error" not in done.stderr, done.stderr
    assert "\\u1d40" in done.stdout or script == "targets"
    assert run(f"bench/{script}.py", "--help", env=env).returncode == 0
