"""What all commands share: arguments, errors as one line, exit codes, Ctrl-C and closed pipes."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from fastnet import __version__
from fastnet.cli.arguments import parser
from fastnet.errors import FastnetError

# Exit codes. 2 is argparse's for wrong arguments; shells take 128 + n for an end by signal n.
DONE, FAILED, MISUSED = 0, 1, 2
STOPPED, UNHEARD = 128 + signal.SIGINT, 128 + 13  # SIGPIPE, which Windows lacks


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command of the command line, by default that of `sys.argv`; returns the exit code.

    0: done. 1: bad data or files, or something missing, which a line on standard error names. 2: wrong
    arguments. 130: stopped by Ctrl-C. 141: whoever reads the output has closed it, as `head` does.
    """
    given = parser()
    options = given.parse_args(arguments)
    if options.version:
        print(f"fastnet {__version__}")
        return DONE
    if options.command is None:
        given.print_help(sys.stderr)
        return MISUSED
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn  # type: ignore[assignment]
            import_module(f"fastnet.cli.{options.command}").run(options)
            sys.stdout.flush()
    except (FastnetError, MemoryError) as error:
        return _fail(str(error) or type(error).__name__)
    except KeyboardInterrupt:
        note("stopped by Ctrl-C")
        return STOPPED
    except BrokenPipeError:
        # Python flushes the output at its end, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNHEARD
    except OSError as error:
        if error.filename is None:
            return _fail(str(error))
        return _fail(f"{error.filename}: {error.strerror}")
    return DONE


def note(text: str) -> None:
    """Print a line for people to standard error; the output is for programs."""
    stream = sys.stderr
    if stream is not None:
        encoding = getattr(stream, "encoding", None) or "utf-8"
        print(f"fastnet: {text}".encode(encoding, "backslashreplace").decode(encoding), file=stream)


def _fail(text: str) -> int:
    note(f"error: {text}")
    return FAILED


def _warn(message: Warning | str, *_: Any) -> None:
    note(f"warning: {message}")
