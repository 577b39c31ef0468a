"""docs/command-line.md: its commands, run one after the other, print what stands below them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import child
import pytest

pytest.importorskip("sklearn")
pytest.importorskip("pandas")
pytest.importorskip("matplotlib")

PAGE = Path(__file__).parents[2] / "docs" / "command-line.md"


def commands(text):
    """Each command of the page, and what it prints."""
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [part.partition("\n")[::2] for part in parts]


def fits(told, printed):
    """Whether lines are what the page says: … stands for anything, and on its own for any lines."""
    lines = [
        "(?s:.*)" if line == "…" else ".*".join(map(re.escape, line.split("…")))
        for line in told.split("\n")
    ]
    pattern = "\n".join(lines)
    return re.fullmatch(pattern, printed) is not None


@pytest.fixture
def shell(tmp_path):
    """Runs a command where `fastnet` and `python` are this Python's; both streams come together."""
    if (bash := shutil.which("bash")) is None:
        pytest.skip("there is no bash")
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, words in {"python": ["-P"], "fastnet": ["-P", "-m", "fastnet"]}.items():
        line = shlex.join([sys.executable, *words])
        (tools / name).write_text(f'#!{bash}\nexec {line} "$@"\n')
        (tools / name).chmod(0o755)
    environment = child.environment()
    environment["PATH"] = f"{tools}:{environment['PATH']}"

    def run(command):
        return subprocess.run(
            [bash, "-c", command],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        ).stdout

    return run


def test_its_commands_print_what_it_says(shell):
    found = commands(PAGE.read_text("utf-8"))
    assert len(found) > 5
    for command, told in found:
        printed = shell(command)
        if command.startswith("fastnet train wine"):  # what it tells on standard error
            printed = "".join(
                line for line in printed.splitlines(keepends=True) if line[:9] != "fastnet: "
            )
        assert fits(told, printed), f"{command}\n{printed}"


@pytest.mark.parametrize(
    ("told", "printed", "same"),
    [("a …\n", "a b\n", True), ("a\n…\nb\n", "a\n1\n2\nb\n", True), ("a\n", "b\n", False)],
)
def test_what_fits(told, printed, same):
    assert fits(told, printed) == same


def test_every_command_and_exit_code_is_on_the_page():
    from fastnet.cli.arguments import parser

    text = PAGE.read_text("utf-8")
    actions = [action for action in parser()._actions if action.choices]
    assert [name for name in actions[0].choices if f"| `fastnet {name}" not in text] == []
