r"""Turn LaTeX into one line of algebra: `\frac{a}{b}` into `a/b`, `\sqrt[3]{x}` into `(x)^(1/3)`."""

from __future__ import annotations

import re

DEEPEST = 40
"""Levels of braces; what goes deeper is left as it stands."""
_TOKEN = re.compile(r"\\[A-Za-z]+\*?|\\.|\d+(?:\.\d+)?|\s+|.", re.DOTALL)
_SIMPLE = re.compile(r"\d+(?:\.\d+)?|[A-Za-z]|pi")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_WHOLE = re.compile(r"\d+")
_MATRICES = {"matrix", "pmatrix", "bmatrix", "smallmatrix", "array"}
_WRAPPERS = {
    "text", "textbf", "textit", "textrm", "textnormal", "mathrm", "mathbf", "mathit", "mathbb", "mathcal", "mbox",
    "operatorname", "boldsymbol", "vec", "boxed", "fbox", "hbox",
}  # fmt: skip
_COMMANDS = {
    "cdot": "*", "times": "*", "ast": "*", "div": "/", "infty": "inf", "cup": "∪", "cap": "∩", "pm": "±", "mp": "∓",
    "le": "<=", "leq": "<=", "leqslant": "<=", "ge": ">=", "geq": ">=", "geqslant": ">=", "lt": "<", "gt": ">",
    "ne": "!=", "neq": "!=", "to": "->", "rightarrow": "->", "varnothing": "emptyset", "mid": "|", "lvert": "|",
    "rvert": "|", "vert": "|", "ldots": "...", "dots": "...", "cdots": "...", "langle": "<", "rangle": ">",
    "lbrace": "{", "rbrace": "}", "lfloor": "⌊", "rfloor": "⌋", "lceil": "⌈", "rceil": "⌉", "varphi": "phi",
    "quad": "", "qquad": "", "rm": "", "bf": "", "displaystyle": "", "ln": "ln",
}  # fmt: skip
_SIGNS = {"√": "sqrt", "π": "pi", "∞": "inf", "·": "*", "×": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!="}


class _TooDeep(ValueError):
    """Braces within braces within braces."""


def read_latex(text: str) -> str:
    """Return LaTeX as one line without spaces; what is nested too deep comes back as it is."""
    try:
        return _Reader(_TOKEN.findall(text)).sequence(0)
    except _TooDeep:
        return "".join(text.split())


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def sequence(self, depth: int, *, end: str = "", rows: bool = False) -> str:
        """Read up to `end` (a token), or to the last token; in `rows`, `&` and `\\\\` part cells and rows."""
        if depth > DEEPEST:
            raise _TooDeep
        out: list[str] = []
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if end and token == end:
                break
            if token.isspace() or token == "}":
                continue
            if rows and token in ("&", "\\\\"):
                out.append("," if token == "&" else "],[")
            else:
                self._one(token, out, depth)
        return "".join(out)

    def _one(self, token: str, out: list[str], depth: int) -> None:
        """Write what one token, with its arguments, stands for."""
        name = token[1:].rstrip("*") if token[0] == "\\" else ""
        if token == "{":
            out.append(self.sequence(depth + 1, end="}"))
        elif name == "frac":
            self._fraction(out, depth)
        elif name == "sqrt":
            self._root(out, depth)
        elif name == "begin":
            self._environment(out, depth)
        elif token in ("^", "_"):
            inside = self._argument(depth)
            out.append(f"{token}{inside}" if token == "^" and _SIMPLE.fullmatch(inside) else f"{token}({inside})")
        elif name in _WRAPPERS:
            out.append(self._argument(depth))
        elif name in ("{", "}"):
            out.append(name)
        elif name and not name[0].isalpha():
            out.append("|" if name == "|" else "")
        else:
            out.append(_COMMANDS.get(name, name) if name else _SIGNS.get(token, token))

    def _argument(self, depth: int) -> str:
        """Read a group in braces, or one token with its own arguments; of a number its first digit alone."""
        while self._at < len(self._tokens) and self._tokens[self._at].isspace():
            self._at += 1
        if self._at >= len(self._tokens):
            return ""
        if depth > DEEPEST:
            raise _TooDeep
        token = self._tokens[self._at]
        if token == "}":
            return ""
        self._at += 1
        out: list[str] = []
        if _NUMBER.fullmatch(token) and len(token) > 1 and self._tokens[self._at - 2 : self._at - 1] != ["^"]:
            self._at -= 1
            self._tokens[self._at] = token[1:]
            return token[0]
        self._one(token, out, depth + 1)
        return "".join(out)

    def _fraction(self, out: list[str], depth: int) -> None:
        above, below = self._argument(depth), self._argument(depth)
        before = out[-1] if out else ""
        negative = above[:1] == "-" and _SIMPLE.fullmatch(above[1:]) is not None
        top = above if negative or _SIMPLE.fullmatch(above) else f"({above})"
        written = f"{top}/{below if _SIMPLE.fullmatch(below) else f'({below})'}"
        if _WHOLE.fullmatch(before) and _WHOLE.fullmatch(above) and _WHOLE.fullmatch(below):
            out[-1] = f"({before}+{written})"  # a mixed number
        elif before[-1:] in ("/", "^") and before:
            out.append(f"({written})")
        else:
            out.append(f"*{written}" if before and (before[-1].isalnum() or before[-1] == ")") else written)

    def _root(self, out: list[str], depth: int) -> None:
        index = ""
        if self._tokens[self._at : self._at + 1] == ["["]:
            self._at += 1
            index = self.sequence(depth + 1, end="]")
        inside = self._argument(depth)
        out.append(f"({inside})^(1/{index})" if index not in ("", "2") else f"sqrt({inside})")

    def _environment(self, out: list[str], depth: int) -> None:
        name = self._argument(depth)
        if name == "array":
            self._argument(depth)  # how its columns stand
        rows = self.sequence(depth + 1, end="\\end", rows=name in _MATRICES or name == "vmatrix").removesuffix("],[")
        self._argument(depth)  # the name again
        if name in _MATRICES:
            out.append(f"[[{rows}]]")
        else:
            out.append(f"det[[{rows}]]" if name == "vmatrix" else f"{name}({rows})")
