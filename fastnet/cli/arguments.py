"""The arguments of all commands, for argparse."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from fastnet.backends.registry import NAMES
from fastnet.tabular.nets import PRESETS, TASKS

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]
FORMS = ("c", "onnx", "int8")
PLAIN: dict[str, Any] = {"allow_abbrev": False}
DATA = "a CSV file (also .gz, .bz2, .xz) or Parquet file (.parquet, .pq), or - for CSV from standard input"
DESCRIPTION = "Train dense neural nets on tables, predict with them, and put them elsewhere."


def parser() -> argparse.ArgumentParser:
    """The parser; what it finds has the command's name as `command`."""
    made = argparse.ArgumentParser(prog="fastnet", description=DESCRIPTION, allow_abbrev=False)
    made.add_argument("--version", action="store_true", help="print the version and end")
    commands = made.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _train(commands)
    _predict(commands)
    _export(commands)
    _info(commands)
    _bench(commands)
    return made


def _train(commands: Commands) -> None:
    text = (
        "Train a net that predicts a column of a table from the others. Prints a report about rows that "
        "the net has not seen, and writes the model to a safetensors file and the report to an HTML page."
    )
    made = commands.add_parser(
        "train", help=text.partition(".")[0] + ".", description=text, **PLAIN
    )
    made.add_argument("data", metavar="DATA", help=DATA)
    made.add_argument("--target", metavar="COL", required=True, help="the column to predict")
    made.add_argument("--task", choices=TASKS, help="by default the target's values tell")
    made.add_argument(
        "--preset",
        choices=PRESETS,
        default="small",
        help="the net: RealMLP-TD-S (small, the default), RealMLP-TD (full, slower), or the ensemble TabM "
        "(tabm)",
    )
    made.add_argument("--out", metavar="FILE", help="the model's file (DATA's name, .safetensors)")
    made.add_argument("--report", metavar="FILE", help="the page's file (the model's name, .html)")
    made.add_argument("--no-report", action="store_true", help="write no page")
    made.add_argument("--epochs", type=at_least(1), metavar="N", help="at most (default 256)")
    made.add_argument(
        "--time-limit", type=positive, metavar="S", help="seconds of training, at most"
    )
    made.add_argument(
        "--test",
        type=share,
        default=0.2,
        metavar="SHARE",
        help="of the rows, which only the report sees (default 0.2; 0: none)",
    )
    made.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="default 0")
    made.add_argument("--backend", default="auto", choices=("auto", *NAMES))
    several: dict[str, Any] = {"action": "append", "default": [], "metavar": "COL"}
    made.add_argument("--category", **several, help="a column of categories; may come again")
    made.add_argument("--drop", **several, help="a column to leave out; may come again")
    made.add_argument(
        "--keep",
        **several,
        help="a column not to leave out, as useless as it looks; may come again",
    )
    _threads(made)
    _reading(made)


def _predict(commands: Commands) -> None:
    text = (
        "Predict the rows of a table by a model of fastnet train. Prints CSV: the target, and behind it "
        "the probability of each class."
    )
    made = commands.add_parser(
        "predict", help=text.partition(".")[0] + ".", description=text, **PLAIN
    )
    made.add_argument("model", metavar="MODEL", help="the file that fastnet train has written")
    made.add_argument("data", metavar="DATA", help=DATA)
    _threads(made)
    _reading(made)


def _export(commands: Commands) -> None:
    text = (
        "Write a model as a program in C or as an ONNX file. Prints what its inputs and outputs stand for, "
        "which the header of C and the metadata of ONNX have too."
    )
    made = commands.add_parser(
        "export", help=text.partition(".")[0] + ".", description=text, **PLAIN
    )
    made.add_argument("model", metavar="MODEL", help="a file of fastnet train or of model.save")
    made.add_argument("--to", required=True, choices=FORMS, help="the form; int8 is C, too")
    made.add_argument("--out", metavar="FILE", help="default: beside MODEL, with another ending")
    made.add_argument(
        "--data",
        metavar="DATA",
        help="for int8: rows such as the net will see, by which it is scaled",
    )
    made.add_argument("--name", help="for c and int8: what names in C begin with (default net)")
    _reading(made)


def _bench(commands: Commands) -> None:
    text = "Measure how fast this machine trains and predicts with a few nets, in ten to twenty seconds."
    made = commands.add_parser("bench", help=text, description=text, **PLAIN)
    made.add_argument("--backend", default="auto", choices=("auto", *NAMES))
    _threads(made)


def _threads(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--threads", type=at_least(1, 64), metavar="N", help="default: as many as cores"
    )


def _reading(made: argparse.ArgumentParser) -> None:
    csv = made.add_argument_group("CSV files")
    csv.add_argument("--separator", type=character, metavar="C", help="by default the file tells")
    csv.add_argument("--decimal", choices=".,", help="by default the numbers tell")
    csv.add_argument("--encoding", metavar="NAME", help="default utf-8")
    csv.add_argument(
        "--missing",
        action="append",
        default=[],
        metavar="TEXT",
        help="a text for a missing value, besides nothing, NA, NaN, null, none, ? and -; may come again",
    )


def _info(commands: Commands) -> None:
    text = (
        "Print the version, the backends and why one is missing, instruction set, threads, caches."
    )
    commands.add_parser("info", help=text, description=text, **PLAIN)


def at_least(low: int, high: int | None = None) -> Callable[[str], int]:
    """What reads integers ≥ low, and ≤ high."""

    def read(text: str) -> int:
        number = int(text)
        if number < low or (high is not None and number > high):
            wanted = f"≥ {low}" if high is None else f"in [{low}, {high}]"
            raise argparse.ArgumentTypeError(f"{text!r}; expected an integer {wanted}")
        return number

    read.__name__ = "integer"  # argparse's messages have it
    return read


def positive(text: str) -> float:
    """A number > 0."""
    number = float(text)
    if not (number > 0 and math.isfinite(number)):
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number > 0")
    return number


def share(text: str) -> float:
    """A number in [0, 1)."""
    number = float(text)
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a number in [0, 1)")
    return number


def character(text: str) -> str:
    """A character of ASCII that separates fields; a backslash and t are a tab."""
    found = "\t" if text == "\\t" else text
    separates = found == "\t" or (found.isascii() and found.isprintable() and found != '"')
    if len(found) != 1 or not separates:
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected one character of ASCII that is no quotation mark, or \\t"
        )
    return found
