"""What the user is told while Numba compiles: one line, on a terminal, when it takes long."""

from __future__ import annotations

import os
import subprocess

import child
import pytest

from tests.backends.test_numba_cache import RUN, USE

pytest.importorskip("numba")
pty = pytest.importorskip("pty")

IMPATIENT = """
from fastnet.backends.numba import natives
natives._PATIENCE = 0
"""


def on_a_terminal(code, place):
    """What a process writes on stderr, a terminal."""
    ours, theirs = pty.openpty()
    try:
        subprocess.run(
            child.command(code),
            env=child.environment(NUMBA_CACHE_DIR=str(place), HOME="nowhere", XDG_CACHE_HOME=""),
            stdout=subprocess.DEVNULL,
            stderr=theirs,
            timeout=300,
            check=True,
        )
        os.set_blocking(ours, False)
        try:
            return os.read(ours, 100_000).decode().replace("\r\n", "\n")
        except BlockingIOError:
            return ""
    finally:
        os.close(ours)
        os.close(theirs)


def test_one_line_while_it_compiles_and_none_when_it_is_loaded(tmp_path):
    code = USE + IMPATIENT + "report()"
    line = f"fastnet: compiling for Numba (once, kept in {tmp_path}/fastnet)\n"
    assert on_a_terminal(code, tmp_path) == line
    assert on_a_terminal(code, tmp_path) == ""


def test_without_a_directory_it_says_so():
    line = "fastnet: compiling for Numba (in every process: no directory to keep it)\n"
    assert on_a_terminal(USE + IMPATIENT + "report()", "") == line


def test_nothing_is_said_when_it_takes_a_moment(tmp_path):
    code = USE + IMPATIENT.replace("= 0", "= 1000") + "report()"
    assert on_a_terminal(code, tmp_path) == ""


@pytest.mark.parametrize(
    "before",
    ["pass", "sys.stderr = None", "sys.stderr.close()", "os.close(2)"],
)
def test_nothing_is_said_where_no_terminal_is(tmp_path, before):
    done = subprocess.run(
        child.command(f"import os, sys\n{before}\n" + IMPATIENT + RUN),
        env=child.environment(NUMBA_CACHE_DIR=str(tmp_path)),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == b""
    assert done.stdout.startswith(b"[")
