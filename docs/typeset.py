"""Formulas in the plain text of docstrings as LaTeX.

A docstring mixes prose with formulas, both for people who read it in a terminal. `typeset` finds the
formulas: what parses as an expression and has more than a word in it. Quotients become fractions, symbols
are italic, names of arguments and functions upright. The LaTeX keeps to what docutils writes as MathML. It
has no backslash before punctuation, no bar and no operatorname, because GitHub's Markdown takes these away.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

GREEK = {
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "η": "eta", "μ": "mu",
    "λ": "lambda", "ν": "nu", "π": "pi", "ρ": "rho", "σ": "sigma", "τ": "tau", "φ": "varphi",
    "Δ": "Delta", "Λ": "Lambda", "Φ": "Phi", "Σ": "Sigma",
}  # fmt: skip
FUNCTIONS = frozenset(("max", "min", "tanh", "ln", "log", "cos", "sin", "exp", "cosh"))
PREFIXED = frozenset(("ln", "log", "cosh"))  # may stand before their argument without parentheses
RELATIONS = {
    "=": "=", "←": r"\leftarrow", "→": r"\to", "≤": r"\leq", "≥": r"\geq", "<": "<", ">": ">",
    "≈": r"\approx", "~": r"\sim", "≠": r"\neq",
}  # fmt: skip
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁻⁺ᵗˣᵏ", "01234-+txk", strict=True)) | {"ᵀ": r"\mathrm{T}"}
SUBSCRIPTS = dict(zip("₀₁₂₃₄₊₋ₜᵢ", "01234+-ti", strict=True))
BRACKETS = {"(": ")", "[": "]", "⌊": "⌋", "|": "|", "‖": "‖"}
LATEX_BRACKETS = {
    "(": "(", ")": ")", "[": "[", "]": "]", "⌊": r"\lfloor ", "⌋": r"\rfloor ",
}  # fmt: skip
LEADING = frozenset(("is", "then", "from", "to"))  # before an argument that stands alone
PROSE = frozenset(("one", "the"))  # never operands, though they follow a relation
TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<code>`[^`]*`|\"[^\"]*\")"
    r"|(?P<prose>[A-Za-z]+(?:'s\b|-[A-Za-z-]+|⁻(?!¹))|[A-Za-z]{2,}')"
    r"|(?P<number>\d+(?:\.\d+)?)"
    r"|(?P<name>[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*)"
    rf"|(?P<greek>[{''.join(GREEK)}])"
    rf"|(?P<up>[{''.join(SUPERSCRIPTS)}]+)|(?P<down>[{''.join(SUBSCRIPTS)}]+)"
    r"|(?P<sign>.)"
)


@dataclass(frozen=True)
class Token:
    """A piece of the text: what kind of thing it is, and whether a blank stands before it."""

    kind: str
    text: str
    apart: bool


@dataclass(frozen=True)
class Tex:
    """An expression as LaTeX.

    math: whether it is more than a word or a number. inner: without the parentheses around it, where it has
    some. fraction: whether it is a quotient and nothing else, which needs none.
    """

    text: str
    math: bool = True
    inner: str = ""
    fraction: bool = False

    @property
    def bare(self) -> str:
        """The LaTeX without parentheses around all of it."""
        return self.inner or self.text


class NotMath(Exception):
    """No expression begins here."""


def typeset(text: str, arguments: frozenset[str] = frozenset()) -> str:
    """The text with its formulas between dollar signs.

    arguments: names that are set as in formulas where they stand alone in the prose.
    """
    tokens = list(_tokens(text))
    found, place = [], 0
    while place < len(tokens):
        token = tokens[place]
        found.append(" " if token.apart else "")
        reader = _Reader(tokens, place)
        try:
            tex = reader.relation()
        except NotMath:
            tex = Tex("", math=False)
        if tex.math and not _article(tokens, place, reader.place):
            found.append(f"${_tidy(tex.text)}$")
            place = reader.place
        elif token.text in arguments and place and tokens[place - 1].text in LEADING:
            found.append(rf"$\mathrm{{{token.text}}}$")
            place += 1
        else:
            found.append(token.text)
            place += 1
    return "".join(found)


def _tidy(latex: str) -> str:
    """The same without the blanks that separate nothing."""
    latex = re.sub(r" +(?=[ _^)}\],'])|(?<=\^\{) +", "", latex.strip())
    return re.sub(rf"(\\(?:{'|'.join([*FUNCTIONS, *GREEK.values()])})) \(", r"\1(", latex)


def _article(tokens: list[Token], begin: int, end: int) -> bool:
    """Whether the expression is the word "a" before a noun, and no symbol."""
    if end - begin != 1 or tokens[begin].text not in ("a", "A", "I"):
        return False
    return end < len(tokens) and tokens[end].kind in ("name", "prose") and tokens[end].text != "is"


def _tokens(text: str) -> Iterator[Token]:
    apart = False
    for found in TOKEN.finditer(text):
        kind = str(found.lastgroup)
        if kind != "space":
            yield Token(kind, found[0], apart)
        apart = kind == "space"


class _Reader:
    """Reads the longest expression from a place on; its methods are the grammar, loosest first."""

    def __init__(self, tokens: list[Token], place: int) -> None:
        self.tokens, self.place = tokens, place

    def peek(self) -> Token:
        """The next token, or an empty one at the end."""
        return self.tokens[self.place] if self.place < len(self.tokens) else Token("end", "", True)

    def take(self) -> Token:
        """The next token, which is used up."""
        token = self.peek()
        self.place += 1
        return token

    def chain(self, signs: dict[str, str], part: Callable[[], Tex]) -> Tex:
        """Parts with signs between them; a sign that no part follows is left for the prose."""
        left = part()
        while self.peek().text in signs and self.peek().kind == "sign" and self.infix():
            before = self.place
            sign = signs[self.take().text]
            try:
                right = part()
            except NotMath:
                self.place = before
                break
            left = Tex(f"{left.text} {sign} {right.text}")
        return left

    def relation(self) -> Tex:
        """Sums, with =, ← and the like between them."""
        return self.chain(RELATIONS, self.sum)

    def infix(self) -> bool:
        """Whether the next sign stands between two operands: with blanks on both sides, or on none."""
        after = self.tokens[self.place + 1 : self.place + 2]
        return bool(after) and self.peek().apart == after[0].apart

    def sum(self) -> Tex:
        """Products, with signs between them and before the first."""
        return self.chain({"+": "+", "−": "-", "±": r"\pm"}, self.signed)

    def signed(self) -> Tex:
        """A product, with a sign before it or without."""
        if self.peek().text in ("−", "±"):
            sign = "-" if self.take().text == "−" else r"\pm "
            return Tex(sign + self.product().text)
        return self.product()

    def product(self, tight: bool = False) -> Tex:
        """Factors with · or / between them, from left to right; tight: up to a / with blanks around it."""
        factors = [self.factor()]
        while self.peek().text in ("·", "/") and not (
            tight and self.peek().text == "/" and self.peek().apart
        ):
            before, sign = self.place, self.take().text
            try:
                right = self.factor()
            except NotMath:
                self.place = before
                break
            if sign == "·":
                factors.append(right)
                continue
            # a/b·c/d is set as two quotients, a·b/c as one.
            kept = len(factors) - 1 if any(one.fraction for one in factors[:-1]) else 0
            over = factors[kept].bare if len(factors) - kept == 1 else _times(factors[kept:])
            factors[kept:] = [Tex(rf"\frac{{{over}}}{{{right.bare}}}", fraction=True)]
        return factors[0] if len(factors) == 1 else Tex(_times(factors))

    def factor(self) -> Tex:
        """What stands together without a sign: 2π, β₁m, (1 − ρ)d²."""
        left = self.power()
        while left.math or left.text.isdigit():
            token = self.peek()
            joined = token.kind in ("name", "greek") or token.text in ("(", "…")
            joined |= left.fraction and token.text in "‖|"
            if token.apart or not joined:
                break
            before = self.place
            try:
                right = self.power()
            except NotMath:
                self.place = before
                break
            left = Tex(f"{left.text} {right.text}")
        return left

    def power(self) -> Tex:
        """An atom with what stands above and below it."""
        base = self.atom()
        text, math = base.text, base.math
        while True:
            token = self.peek()
            if token.apart:
                break
            if token.kind in ("up", "down"):
                marks = SUPERSCRIPTS if token.kind == "up" else SUBSCRIPTS
                self.take()
                mark = "^" if token.kind == "up" else "_"
                text += f"{mark}{{{''.join(marks[c] for c in token.text)}}}"
            elif token.text in "'′\u0302*" and token.text:
                self.take()
                text = {"'": text + "'", "′": text + "'", "*": text + r"^{\ast}"}.get(
                    token.text, rf"\hat{{{text}}}"
                )
            elif token.text == "^":
                self.take()
                text += f"^{{{self.exponent()}}}"
            elif token.text == "_":
                self.take()
                text += f"_{{{self.atom().bare}}}"
            elif token.text == "(" and _callable(base):
                text += self.group().text
                base = Tex("", math=False)
            elif token.text == "[" and _callable(base):
                self.take()
                text += f"[{self.list_to(']')}]"
            else:
                break
            math = True
        if text != base.text:
            return Tex(text, math)
        return Tex(base.inner, fraction=True) if base.inner and base.fraction else base

    def exponent(self) -> str:
        """What follows ^: an atom, with its sign and its indices."""
        if self.peek().text == "−":
            self.take()
            return "-" + self.atom().bare
        return self.atom().bare

    def group(self) -> Tex:
        """What stands in brackets of any kind."""
        begin = self.take().text
        inside = self.list_to(BRACKETS[begin])
        if begin in "|‖":
            side = "vert" if begin == "|" else "Vert"
            return Tex(rf"\l{side} {inside} \r{side}")
        close = BRACKETS[begin]
        whole = f"{LATEX_BRACKETS[begin]}{inside}{LATEX_BRACKETS[close]}"
        if begin != "(" or "," in inside:
            return Tex(whole)
        return Tex(whole, inner=inside, fraction=_one_fraction(inside))

    def list_to(self, close: str) -> str:
        """Expressions with commas between them, up to a bracket."""
        parts: list[str] = []
        while True:
            if self.peek().text == close and parts:
                parts.append("")  # (n,)
                self.take()
                break
            if self.peek().text == ":":
                parts.append(self.take().text)
            else:
                parts.append(self.relation().text)
            after = self.take().text
            if after == close:
                break
            if after != ",":
                raise NotMath
        return ", ".join(parts).rstrip(" ")

    def atom(self) -> Tex:
        """A number, a name, a letter, a root, a sum sign with its summand, or a group."""
        token = self.take()
        if token.kind == "number":
            return Tex(token.text, math=False)
        if token.kind == "greek" and token.text == "Σ":
            below = ""
            if self.peek().text == "_":
                self.take()
                below = f"_{{{self.atom().bare}}}"
            return Tex(rf"\sum{below} {self.product(tight=True).text}")
        if token.kind == "greek":
            return Tex(self.indexed(f"\\{GREEK[token.text]} "))
        if token.kind == "name":
            return self.name(token.text)
        if token.text == "√":
            return Tex(rf"\sqrt{{{self.power().bare}}}")
        if token.text == "½":
            return Tex(r"\frac{1}{2}", math=self.peek().text in ("·", "(", "‖"), fraction=True)
        if token.text == "…":
            return Tex(r"\ldots ", math=False)
        if token.kind == "sign" and token.text in BRACKETS:
            self.place -= 1
            return self.group()
        raise NotMath

    def indexed(self, letter: str) -> str:
        """A letter with _j after it."""
        if self.peek().text == "_" and not self.peek().apart:
            self.take()
            return f"{letter.strip()}_{{{self.atom().bare}}}"
        return letter

    def name(self, text: str) -> Tex:
        """A symbol with its index, a function, or an argument by its name."""
        head, _, index = text.partition("_")
        if text in PROSE:
            raise NotMath
        if text in FUNCTIONS:
            plain = self.peek()
            if text in PREFIXED and plain.apart:
                return Tex(rf"\{text} {self.power().text}")
            if plain.text == "(" or plain.kind == "down":
                return Tex(rf"\{text} ", math=False)
        if len(head) == 1 and index and (len(index) <= 2 or index == "max"):
            return Tex(f"{head}_{{{index if index != 'max' else chr(92) + 'max'}}}")
        if len(text) == 1:
            return Tex(self.indexed(text))
        if len(index) == 1:
            return Tex(rf"\mathrm{{{head}}}_{{{index}}}")
        if index:
            return Tex(rf"\text{{{text}}}")
        if re.fullmatch("d[Ly]", text):
            return Tex(rf"\mathrm{{d}}{text[1]}")
        return Tex(rf"\mathrm{{{text}}}", math=False)


def _times(factors: list[Tex]) -> str:
    return r" \cdot ".join(one.text for one in factors)


def _one_fraction(latex: str) -> bool:
    """Whether this is a quotient, with a sign or without, and nothing behind it."""
    begun = re.match(r"-?\\frac\{", latex)
    depth, groups = 0, 0
    for place, sign in enumerate(latex):
        depth += (sign == "{") - (sign == "}")
        groups += sign == "}" and depth == 0
        if groups == 2:
            return bool(begun) and place == len(latex) - 1
    return False


def _callable(base: Tex) -> bool:
    """Whether a parenthesis right behind it holds its arguments."""
    return bool(re.match(r"[A-Za-z]|\\(?!frac|sum|sqrt)", base.text))
