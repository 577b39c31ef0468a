"""C text: definitions with their names, and of them those that a program needs, for a dtype and a prefix.

A file of definitions has functions, constants and enums of the type `real`. `Library` reads such texts;
`Program` collects what is needed, and renames everything at file scope.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

HERE = Path(__file__).parent
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
NAME = re.compile(r"[A-Za-z_]\w*")
# What the text calls, and its name in the exported file, which gets the prefix in capitals.
MACROS = {
    "INLINED": "INLINE",
    "RESTRICT": "RESTRICT",
    "NO_FMA": "NO_FMA",
    "BLOCK": "BLOCK",
    "UNROLLED": "UNROLLED",
}
UNSIGNED = {False: "uint32_t", True: "uint64_t"}
SIGNED = {False: "int32_t", True: "int64_t"}


@dataclass(frozen=True)
class Definition:
    """A function, constant or enum, with its comment; `names` are what it defines."""

    names: tuple[str, ...]
    text: str

    @property
    def used(self) -> set[str]:
        """The names that occur in it."""
        return set(NAME.findall(COMMENT.sub(" ", self.text)))

    @property
    def parameters(self) -> list[tuple[str, str]]:
        """A function's parameters: type and name."""
        code = COMMENT.sub(" ", self.text)
        inside = code[code.index("(") + 1 : code.index(")")]
        pairs = (re.fullmatch(r"\s*(.*?)(\w+)\s*", part, re.DOTALL) for part in inside.split(","))
        return [(pair[1].strip(), pair[2]) for pair in pairs if pair]


class Library:
    """Definitions by name, for elements of a dtype: double or float."""

    def __init__(self, texts: Iterable[str], *, double: bool) -> None:
        self.double = double
        self.found: dict[str, Definition] = {}
        for text in texts:
            self.add(text)

    @classmethod
    def of_package(cls, *, double: bool) -> Library:
        """The definitions of the package's own files."""
        files = (HERE / "elements.h", HERE / "kernels.h")
        return cls((path.read_text("utf-8") for path in files), double=double)

    def add(self, text: str) -> None:
        """Read the definitions of a text."""
        for definition in definitions(resolved(text, double=self.double)):
            self.found |= dict.fromkeys(definition.names, definition)

    def needed(self, names: Iterable[str]) -> list[Definition]:
        """The definitions of these names and of all that they use, in order."""
        wanted, left = set[str](), [name for name in names if name in self.found]
        while left:
            name = left.pop()
            if name not in wanted:
                wanted.update(self.found[name].names)
                left += self.found[name].used & self.found.keys() - wanted
        chosen = dict.fromkeys(self.found[name] for name in self.found if name in wanted)
        return _callees_first(list(chosen), self.found)


def _callees_first(chosen: list[Definition], found: dict[str, Definition]) -> list[Definition]:
    done: dict[Definition, None] = {}

    def visit(one: Definition) -> None:
        for name in sorted(one.used & found.keys() - set(one.names)):
            if found[name] in chosen and found[name] not in done:
                visit(found[name])
        done.setdefault(one)

    for one in chosen:
        visit(one)
    return list(done)


def definitions(text: str) -> list[Definition]:
    """The definitions of a text, each from its comment to the line that ends it."""
    found, lines, depth, comment = [], list[str](), 0, False
    for line in text.splitlines():
        if not line.strip() and depth == 0 and not comment:
            lines.clear()  # a comment by itself, such as that of the file
            continue
        lines.append(line)
        comment = (comment or "/*" in line) and "*/" not in line.rpartition("/*")[2]
        code = COMMENT.sub("", line)
        depth += code.count("{") - code.count("}")
        if depth == 0 and not comment and code.rstrip().endswith(("}", ";")):
            whole = "\n".join(lines)
            found.append(Definition(names_of(whole), whole))
            lines.clear()
    return found


def names_of(definition: str) -> tuple[str, ...]:
    """The names that a definition defines."""
    code = COMMENT.sub("", definition).strip()
    if code.startswith("enum"):
        inside = code[code.index("{") + 1 : code.index("}")]
        return tuple(NAME.findall(re.sub(r"=[^,]*", "", inside)))
    head = re.split(r"[({=\[]", code, maxsplit=1)[0]
    return (NAME.findall(head)[-1],)


def resolved(text: str, *, double: bool) -> str:
    """A text whose macros of the dtype are replaced."""
    branches = r"#if REAL_IS_DOUBLE\n(.*?)(?:#else\n(.*?))?#endif\n"
    text = re.sub(branches, lambda m: (m[1] if double else m[2]) or "", text, flags=re.DOTALL)
    text = re.sub(r"[ \t]*#pragma GCC unroll \d+\n", lambda m: "UNROLLED\n", text)
    text = _macro(text, "REAL", lambda a: _halves(a)[int(double)].strip())
    text = _macro(text, "R", lambda a: f"(real)({a})")
    text = text.replace("REAL_FN(inf)()", "(real)INFINITY").replace('REAL_FN(nan)("")', "(real)NAN")
    text = re.sub(r"REAL_FN\((\w+)\)", r"\1" if double else r"\1f", text)
    return re.sub(r"0x[\da-fA-F.]+p[+-]?\d+f?", _decimal, text)


def _decimal(found: re.Match[str]) -> str:
    """A number in hexadecimal digits, which C++ takes only since 2017, in decimal ones."""
    number = found[0]
    return repr(float.fromhex(number.rstrip("f"))) + ("f" if number.endswith("f") else "")


def _macro(text: str, name: str, write: Callable[[str], str]) -> str:
    """The text with each `name(…)` written anew."""
    parts, at = [], 0
    for found in re.finditer(rf"\b{name}\(", text):
        if found.start() < at:  # within the last one
            continue
        depth, end = 1, found.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        inside = _macro(text[found.end() : end - 1], name, write)
        parts += [text[at : found.start()], write(inside)]
        at = end
    return "".join([*parts, text[at:]])


def _halves(arguments: str) -> list[str]:
    depth = 0
    for i, letter in enumerate(arguments):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            return [arguments[:i], arguments[i + 1 :]]
    raise ValueError(arguments)


def renamed(text: str, names: Iterable[str], prefix: str, *, double: bool) -> str:
    """The text for an exported file: with the C type of the dtype, and its names behind the prefix."""
    capitals, real = prefix.upper(), "double" if double else "float"
    to = {name: f"{prefix}_{name.removeprefix('real_')}" for name in names}
    to |= {name: f"{capitals}_{new}" for name, new in MACROS.items()}
    to |= {"real": real, "bits": UNSIGNED[double], "signed_bits": SIGNED[double]}
    to["ELEMENT"] = f"{capitals}_INLINE {real}"
    pieces = re.split(f"({COMMENT.pattern})", text, flags=re.DOTALL)
    codes = (NAME.sub(lambda m: to.get(m[0], m[0]), code) for code in pieces[::2])
    return "".join(a + b for a, b in zip_longest(codes, pieces[1::2], fillvalue=""))
