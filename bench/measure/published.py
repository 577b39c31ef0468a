"""Results that a benchmark keeps in a file, and the page that it writes of them."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from fastnet.terminal import show

Results = dict[str, Any]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The options that tell where results come from and where they are kept."""
    parser.add_argument("--from", dest="source", metavar="FILE")
    parser.add_argument("-o", "--output", metavar="FILE", help="where to keep the results")


def publish(
    options: argparse.Namespace,
    measured: Iterable[Results],
    page: Callable[[Results], str],
    path: Path,
) -> None:
    """Write and show the page of what is measured, or of the results in the file that `--from` names.

    measured: the results as they grow, the last ones whole; each is kept, so that little is lost.
    """
    results: Results = {}
    if options.source:
        results = json.loads(Path(options.source).read_text("utf-8"))
    else:
        for results in measured:
            if options.output:
                Path(options.output).write_text(json.dumps(results), "utf-8")
    text = page(results)
    path.write_text(text, "utf-8")
    show(text)
