"""The pool of threads by itself: a C program, plain and under the thread sanitizer."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"


@pytest.mark.parametrize("sanitizer", ["none", "thread"])
def test_teams_visit_everything_once_and_wait_for_one_another(sanitizer, tmp_path):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    program = tmp_path / "pool_test"
    flags = ["-O1", "-g", "-std=gnu11", "-Wall", "-Wextra", "-pthread", f"-I{CSRC}"]
    flags += ["-Wl,--wrap=pthread_create"]  # the program decides how many threads there are
    flags += [] if sanitizer == "none" else [f"-fsanitize={sanitizer}"]
    sources = [str(HERE / "pool_test.c"), str(CSRC / "engine" / "pool.c")]
    built = subprocess.run(
        [compiler, *flags, *sources, "-o", str(program)],
        capture_output=True,
        text=True,
        check=False,
    )
    if sanitizer != "none" and "cannot find" in built.stderr:
        pytest.skip("the compiler has no thread sanitizer")
    assert built.returncode == 0 and not built.stderr, built.stderr
    done = subprocess.run(
        [program],
        env={**os.environ, "TSAN_OPTIONS": "die_after_fork=0"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING: ThreadSanitizer" not in done.stderr
