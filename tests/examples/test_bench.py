"""The benchmarks still run: each once, untimed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fastnet

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    package = Path(fastnet.__file__).resolve().parents[1]
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
        check=False,
    )


@pytest.mark.slow
def test_every_benchmark_runs():
    pytest.importorskip("pytest_benchmark")
    options = ("--benchmark-disable", "-q", "-x", "-p", "no:cacheprovider")
    done = run("-m", "pytest", "bench", *options)
    assert done.returncode == 0, done.stdout[-5000:]


@pytest.mark.slow
def test_a_comparison_writes_its_table(tmp_path: Path):
    written = tmp_path / "table.md"
    options = ("xor", "--seconds", "0", "--write", str(written))
    done = run("bench/compare_steps.py", *options)
    assert done.returncode == 0, done.stderr
    text = written.read_text(encoding="utf-8")
    assert done.stdout.rstrip() == text.rstrip()
    assert "| xor 2-4-1, batch 4 |" in text


def test_targets_say_how_to_run_them():
    done = run("bench/targets.py", "--help")
    assert done.returncode == 0 and "--seconds" in done.stdout
