"""The command line as a process: `fastnet info`, exit codes, closed pipes."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata

import child
import pytest

import fastnet as fn
from fastnet.cli.main import DONE, FAILED, MISUSED, UNHEARD, main

COMMAND = [sys.executable, "-P", "-m", "fastnet"]


def run(*arguments, **variables):
    return subprocess.run(
        [*COMMAND, *arguments],
        env=child.environment(**variables),
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_info_tells_every_backend_and_why_one_is_missing(capsys):
    assert main(["info"]) == DONE
    text = capsys.readouterr().out
    assert f"fastnet {fn.__version__}" in text
    for name, found in fn.backends().items():
        assert f"  {name}: {found!r}\n" in text
    if fn.backends()["c"].available:
        assert re.search("\ninstruction set of c: (x86-64|aarch64).* of .*FASTNET_SIMD_LEVEL", text)
    assert f"threads: {fn.get_num_threads()}, " in text
    assert "cache of compiled code (numba): " in text


def test_info_tells_what_settings_do():
    done = run("info", FASTNET_NUM_THREADS="3", NUMBA_CACHE_DIR="/nowhere", FASTNET_SIMD_LEVEL="0")
    assert done.returncode == DONE and done.stderr == ""
    assert "threads: 3, FASTNET_NUM_THREADS=3\n" in done.stdout
    assert "(numba): /nowhere/fastnet, 0 files, 0.0 MB\n" in done.stdout


def test_packages_are_those_of_the_installed_distribution(capsys):
    try:
        metadata.distribution("fastnet-engine")
    except metadata.PackageNotFoundError:
        pytest.skip("the sources are not installed")
    main(["info"])
    text = capsys.readouterr().out
    assert "\n  numpy: " in text and "\n  matplotlib (extra plot): " in text
    assert "pytest" not in text and text.count("\n  numba (extra") == 1


def test_an_error_is_one_line_without_a_traceback():
    done = run("info", FASTNET_NUM_THREADS="many")
    assert done.returncode == FAILED
    assert done.stderr == (
        "fastnet: error: FASTNET_NUM_THREADS is 'many'; expected an integer ≥ 1\n"
    )


@pytest.mark.parametrize("arguments", [[], ["unknown"], ["info", "more"], ["--vers"]])
def test_wrong_arguments_show_the_usage(arguments):
    done = run(*arguments)
    assert done.returncode == MISUSED and done.stdout == ""
    assert "usage: fastnet" in done.stderr and "Traceback" not in done.stderr


def test_the_version():
    assert run("--version").stdout == f"fastnet {fn.__version__}\n"


def test_a_closed_pipe_ends_it_quietly():
    with subprocess.Popen(
        [*COMMAND, "info"], env=child.environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == UNHEARD
