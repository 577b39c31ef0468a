"""The command line in this process, as a user would call it."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastnet.cli.main import main


class Done(NamedTuple):
    """What a command has done."""

    code: int
    out: str
    err: str


def fastnet(capsys: Any, *arguments: Any) -> Done:
    """Run a command with these arguments."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:  # argparse's
        code = end.code
    found = capsys.readouterr()
    return Done(code, found.out, found.err)
