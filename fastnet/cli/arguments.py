"""The arguments of all commands, for argparse."""

from __future__ import annotations

import argparse

DESCRIPTION = "Train dense neural nets on tables, predict with them, and put them elsewhere."


def parser() -> argparse.ArgumentParser:
    """The parser; what it finds has the command's name as `command`."""
    made = argparse.ArgumentParser(prog="fastnet", description=DESCRIPTION, allow_abbrev=False)
    made.add_argument("--version", action="store_true", help="print the version and end")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _info(commands)
    return made


def _info(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = (
        "Print the version, the backends and why one is missing, instruction set, threads, caches."
    )
    commands.add_parser("info", help=text, description=text, allow_abbrev=False)
