"""The process that `symbolic` asks: reads two expressions with a grammar of its own, and lets sympy compare them.

Run as a program of its own, with nothing of this package around it. Its memory, its processor time for each question
and the size of every number are limited; a question that goes beyond ends the process, which is started again.
"""

from __future__ import annotations

import contextlib
import json
import re
import sys
from typing import Any

import sympy

MEMORY = 1 << 30
"""Bytes of address space."""
DEEPEST = 60
MOST_DIGITS = 60
MOST_BITS = 20_000
"""Of a power that is worked out."""
MOST_EXPONENT = 60
"""Of a power of anything but numbers."""
MOST_FACTORIAL = 100
POINTS = ("7/11", "13/5", "19/23")
"""Where two expressions are first compared in numbers."""
_TOKEN = re.compile(
    r"(?P<number>\d+(?:\.\d+)?|\.\d+)|(?P<name>arc(?:sin|cos|tan)|sqrt|sin|cos|tan|cot|sec|csc|log|ln|exp|pi|alpha|beta"
    r"|gamma|delta|theta|lambda|mu|phi|omega|[a-z])|(?P<sign>[-+*/^!()|_]|\[|\])"
)
_FUNCTIONS = {
    "sqrt": sympy.sqrt, "sin": sympy.sin, "cos": sympy.cos, "tan": sympy.tan, "cot": sympy.cot, "sec": sympy.sec,
    "csc": sympy.csc, "log": sympy.log, "ln": sympy.log, "exp": sympy.exp, "arcsin": sympy.asin, "arccos": sympy.acos,
    "arctan": sympy.atan,
}  # fmt: skip
_CONSTANTS = {"pi": sympy.pi, "e": sympy.E, "i": sympy.I}


class Refused(ValueError):
    """No expression of this grammar, or too large a one."""


class Reader:
    """Reads one expression: sums of products of powers, with products that have no sign."""

    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = list(_tokens(text))
        self._at = 0
        self._depth = 0

    def whole(self) -> Any:
        """Read all of it."""
        value = self._sum()
        if self._at < len(self._tokens):
            raise Refused
        return value

    def _sum(self) -> Any:
        self._deeper()
        value = self._product()
        while self._next() in ("+", "-"):
            sign = self._take()
            value = value + self._product() if sign == "+" else value - self._product()
        self._depth -= 1
        return value

    def _product(self) -> Any:
        value = self._signed()
        while True:
            if self._next() == "*":
                self._take()
                value = value * self._signed()
            elif self._next() == "/":
                self._take()
                below = self._signed()
                if below == 0:
                    raise Refused
                value = value / below
            elif self._starts():
                value = value * self._power()
            else:
                return value

    def _signed(self) -> Any:
        negative = False
        while self._next() in ("+", "-"):
            negative ^= self._take() == "-"
        value = self._power()
        return -value if negative else value

    def _power(self) -> Any:
        base = self._atom()
        while self._next() == "!":
            self._take()
            base = _factorial(base)
        if self._next() != "^":
            return base
        self._take()
        self._deeper()
        exponent = self._signed()
        self._depth -= 1
        return _raised(base, exponent)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > DEEPEST:
            raise Refused

    def _atom(self) -> Any:
        kind, text = self._token()
        self._at += 1
        if kind == "number":
            if len(text) > MOST_DIGITS:
                raise Refused
            return sympy.Rational(text)
        if kind == "name":
            return self._named(text)
        closing = {"(": ")", "[": "]", "|": "|"}.get(text)
        if closing is None:
            raise Refused
        value = self._sum()
        if self._take() != closing:
            raise Refused
        return sympy.Abs(value) if closing == "|" else value

    def _named(self, name: str) -> Any:
        below = self._subscript()
        if name not in _FUNCTIONS:
            return sympy.Symbol(f"{name}_{below}") if below is not None else _CONSTANTS.get(name, sympy.Symbol(name))
        exponent = None
        if self._next() == "^":  # sin^2(x)
            self._take()
            exponent = self._signed() if self._next() == "-" else self._atom()
        inside = self._power() if self._next() == "(" else self._argument()
        if below is not None and name != "log":
            raise Refused
        value = _FUNCTIONS[name](inside) if below is None else sympy.log(inside, below)
        return value if exponent is None else _raised(value, exponent)

    def _argument(self) -> Any:
        """Read what a function without brackets takes: `sin 2x`."""
        value = self._power()
        while self._starts() and self._next() != "(" and self._token()[1] not in _FUNCTIONS:
            value = value * self._power()
        return value

    def _subscript(self) -> Any:
        if self._next() != "_":
            return None
        self._take()
        return self._atom()

    def _starts(self) -> bool:
        kind, text = self._token() if self._at < len(self._tokens) else ("", "")
        return kind in ("number", "name") or text in ("(", "[")

    def _next(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        text = self._next()
        self._at += 1
        return text

    def _token(self) -> tuple[str, str]:
        if self._at < len(self._tokens):
            return self._tokens[self._at]
        raise Refused


def equal(left: str, right: str) -> bool | None:
    """Tell whether two expressions are equal; None where one cannot be read."""
    try:
        difference = Reader(left).whole() - Reader(right).whole()
    except (Refused, RecursionError, ZeroDivisionError):
        return None
    if difference.has(sympy.nan, sympy.zoo, sympy.oo):
        return None
    for point in POINTS:
        at = {symbol: sympy.Rational(point) + i for i, symbol in enumerate(sorted(difference.free_symbols, key=str))}
        value = difference.subs(at).evalf(30)
        if value.is_number and value.is_finite and abs(value) > 1e-9:
            return False
    return bool(sympy.simplify(difference) == 0)


def _tokens(text: str) -> Any:
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise Refused
        yield str(found.lastgroup), found.group()
        at = found.end()


def _factorial(value: Any) -> Any:
    if not (value.is_Integer and 0 <= value <= MOST_FACTORIAL):
        raise Refused
    return sympy.factorial(value)


def _raised(base: Any, exponent: Any) -> Any:
    """Raise to a power, unless the result would be too long to write."""
    if exponent.is_Rational:
        size = abs(exponent)
        if base.is_Rational:
            bits = max(int(abs(base.p)).bit_length(), int(base.q).bit_length())
            if size * bits > MOST_BITS or exponent.q > MOST_EXPONENT or (base == 0 and exponent < 0):
                raise Refused
        elif size > MOST_EXPONENT or exponent.q > MOST_EXPONENT:
            raise Refused
    return base**exponent


def _limit(seconds: float) -> None:
    """Give the next question its processor time: the process ends where that is used up, whatever it is doing."""
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):
        import signal

        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Answer questions, one a line, until there are no more."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that asks; it closes the pipe
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    seconds = float(sys.argv[1])
    print("ready", flush=True)
    for line in sys.stdin:
        left, right = json.loads(line)
        _limit(seconds)
        try:
            same = equal(left, right)
        except Exception:  # sympy fails in many ways on odd expressions; the answer is then not known
            same = None
        _limit(0)
        print(json.dumps(same), flush=True)


if __name__ == "__main__":
    main()
