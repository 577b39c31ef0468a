"""compute-sanitizer over the contract tests on a GPU: errors of memory, races in shared memory.

    python bench/gpu/sanitizer.py      # exits with 1 where there is one, or where it cannot tell

compute-sanitizer comes with the CUDA toolkit. A segment is one allocation, so that memcheck sees what lies
beyond all of it; the tests put canaries between tensors. Races through global memory are not looked for.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # bench/, as for a script there

from measure import pin  # isort: skip  (before NumPy loads)

import os
import re
import shutil
import subprocess
from typing import Any

import fastnet as fn
from fastnet.terminal import show
from measure import machine

Results = dict[str, Any]
PROGRAM = "compute-sanitizer"
FOUND = 86  # the exit status where there are errors
COMMON = ("--target-processes", "all", "--error-exitcode", str(FOUND))
TOOLS = {  # some tests ask for memory that there is not; cuBLAS's own kernels are not ours to race
    "memcheck": ("--padding", "256", "--report-api-errors", "no"),
    "racecheck": ("--kernel-name", "kernel_substring=fastnet"),
}
TESTS = ("-m", "pytest", "-q", "-m", "contract", "-p", "no:cacheprovider")
SUMMARY = re.compile(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+)", re.MULTILINE)
PASSED = re.compile(r"^(\d+) passed", re.MULTILINE)
LINES = 40  # of its report that are kept


def reason() -> str | None:
    """Why it cannot run here, or None."""
    info = fn.backends()["cuda"]
    if not info.available:
        return info.reason
    if machine.simulated():
        return "Numba's simulator is on, and has no device"
    if not shutil.which(PROGRAM):
        return f"there is no {PROGRAM} on the PATH; it comes with the CUDA toolkit"
    return None


def judge(status: int, output: str) -> Results:
    """What a run says: how many errors, over how many tests; `clean` where it surely found none."""
    errors, tests = map(int, SUMMARY.findall(output)), map(int, PASSED.findall(output))
    found = list(errors)
    result: Results = {"errors": sum(found) if found else None, "tests": sum(tests)}
    result["clean"] = status == 0 and result["errors"] == 0 and result["tests"] > 0
    if not result["clean"]:
        told = [line for line in output.splitlines() if line.startswith("====")]
        result |= {"status": status, "report": (told or output.splitlines())[:LINES]}
    return result


def run(tool: str) -> Results:
    """One tool over the contract tests of the backend."""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [PROGRAM, "--tool", tool, *COMMON, *TOOLS[tool], sys.executable, *TESTS],
        cwd=root,
        env={**os.environ, "FASTNET_TEST_BACKENDS": "cuda"},
        preexec_fn=pin.widen,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    return judge(done.returncode, done.stdout)


def measure() -> Results:
    """What each tool found, or why they did not run."""
    why = reason()
    if why:
        return {"left_out": why}
    results = {}
    for tool in TOOLS:
        print(f"{PROGRAM} --tool {tool} …", file=sys.stderr, flush=True)
        results[tool] = run(tool)
    return results


def main() -> int:
    """Print; the exit status."""
    results = measure()
    if "left_out" in results:
        show(f"not run: {results['left_out']}")
        return 1
    for tool, found in results.items():
        print(f"{tool}: {found['errors']} errors in {found['tests']} tests that passed")
        show("\n".join(found.get("report", [])))
    return 0 if all(found["clean"] for found in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
