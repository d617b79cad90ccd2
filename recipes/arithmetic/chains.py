"""Ways to work out `a+b*c+d-e*f`, written as short chains of steps, right or with slips that are carried on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

MOST = 29
"""The largest of the six integers, as in Multiagent Debate: 0 to 29, 30 ** 6 or 729 million expressions."""


class Problem(NamedTuple):
    """The six integers of `a+b*c+d-e*f`."""

    a: int
    b: int
    c: int
    d: int
    e: int
    f: int

    @property
    def text(self) -> str:
        """The expression as questions have it, without spaces."""
        return f"{self.a}+{self.b}*{self.c}+{self.d}-{self.e}*{self.f}"

    @property
    def value(self) -> int:
        """What it comes to."""
        return self.a + self.b * self.c + self.d - self.e * self.f


def draw_problem(rng: random.Random) -> Problem:
    """Draw six integers, each uniform over 0 to 29."""
    return Problem(*(rng.randint(0, MOST) for _ in range(6)))


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A worked solution."""

    problem: Problem
    steps: str
    first: int
    """What it takes `b*c` for."""
    second: int
    """What it takes `e*f` for."""
    answer: int
    right: bool
    """Whether no step slipped. A slip that changes nothing in the end is still one."""

    @property
    def text(self) -> str:
        """The whole reply."""
        return f"{self.steps}\nAnswer: {self.answer}"


class Slips:
    """Makes a step's result wrong now and then, in the ways in which small models go wrong."""

    def __init__(self, rng: random.Random, rate: float) -> None:
        self.rng, self.rate, self.made = rng, rate, False

    def __call__(self, value: int) -> int:
        """Return the value, or a wrong one at the rate: a digit missed, a carry lost, two digits swapped."""
        if self.rng.random() >= self.rate:
            return value
        self.made = True
        rng, size = self.rng, abs(value)
        wrong = size
        kind = rng.randrange(6)
        if kind == 0 and size > 9:
            digits = list(str(size))
            i = rng.randrange(len(digits) - 1)
            digits[i], digits[i + 1] = digits[i + 1], digits[i]
            wrong = int("".join(digits))
        elif kind <= 2 and size > 9:
            wrong = size + rng.choice((-10, 10, 10, -10, 100, -100) if size > 99 else (-10, 10))
        elif kind == 3:
            wrong = size - size % 10 + rng.randrange(10)
        if wrong == size:
            wrong = size + rng.choice((-2, -1, 1, 2))
        return -wrong if value < 0 else wrong


def _times(slip: Slips, b: int, c: int, parts: bool) -> tuple[str, int]:
    """Write a product, in one step or by the tens and ones of one factor."""
    if parts and (c < 10 or c % 10 == 0) and b > 10:
        b, c, shown = c, b, f"{b}*{c}"
    else:
        shown = f"{b}*{c}"
    if parts and c > 10 and c % 10 and b > 1:
        tens, ones = slip(b * (c // 10 * 10)), slip(b * (c % 10))
        value = slip(tens + ones)
        return f"{shown}={tens}+{ones}={value}", value
    value = slip(b * c)
    return f"{shown}={value}", value


def _products(p: Problem, slip: Slips, parts: bool = False) -> Chain:
    one, first = _times(slip, p.b, p.c, parts)
    two, second = _times(slip, p.e, p.f, parts)
    s = slip(p.a + first)
    t = slip(s + p.d)
    u = slip(t - second)
    mark = "In parts" if parts else "Products first"
    steps = f"{mark}.\n{one}\n{two}\n{p.a}+{first}={s}\n{s}+{p.d}={t}\n{t}-{second}={u}"
    return Chain(problem=p, steps=steps, first=first, second=second, answer=u, right=not slip.made)


def _parts(p: Problem, slip: Slips) -> Chain:
    return _products(p, slip, parts=True)


def _gather(p: Problem, slip: Slips) -> Chain:
    s = slip(p.a + p.d)
    one, first = _times(slip, p.b, p.c, parts=False)
    t = slip(s + first)
    two, second = _times(slip, p.e, p.f, parts=False)
    u = slip(t - second)
    steps = f"Plus terms first.\n{p.a}+{p.d}={s}\n{one}\n{s}+{first}={t}\n{two}\n{t}-{second}={u}"
    return Chain(problem=p, steps=steps, first=first, second=second, answer=u, right=not slip.made)


def _minus(p: Problem, slip: Slips) -> Chain:
    two, second = _times(slip, p.e, p.f, parts=False)
    s = slip(p.d - second)
    t = slip(p.a + s)
    one, first = _times(slip, p.b, p.c, parts=False)
    u = slip(t + first)
    plus = f"{p.a}+{s}" if s >= 0 else f"{p.a}-{-s}"
    steps = f"Minus first.\n{two}\n{p.d}-{second}={s}\n{plus}={t}\n{one}\n{t}+{first}={u}"
    return Chain(problem=p, steps=steps, first=first, second=second, answer=u, right=not slip.made)


def _difference(p: Problem, slip: Slips) -> Chain:
    one, first = _times(slip, p.b, p.c, parts=False)
    two, second = _times(slip, p.e, p.f, parts=False)
    s = slip(first - second)
    t = slip(p.a + p.d)
    u = slip(t + s)
    last = f"{t}+{s}" if s >= 0 else f"{t}-{-s}"
    steps = f"Difference of the products.\n{one}\n{two}\n{first}-{second}={s}\n{p.a}+{p.d}={t}\n{last}={u}"
    return Chain(problem=p, steps=steps, first=first, second=second, answer=u, right=not slip.made)


def _rewriting(p: Problem, slip: Slips) -> Chain:
    first, second = slip(p.b * p.c), slip(p.e * p.f)
    s = slip(p.a + first)
    t = slip(s + p.d)
    u = slip(t - second)
    steps = f"Line by line.\n{p.text}\n={p.a}+{first}+{p.d}-{second}\n={s}+{p.d}-{second}\n={t}-{second}\n={u}"
    return Chain(problem=p, steps=steps, first=first, second=second, answer=u, right=not slip.made)


def _words(p: Problem, slip: Slips) -> Chain:
    first, second = slip(p.b * p.c), slip(p.e * p.f)
    s = slip(p.a + first)
    t = slip(s + p.d)
    u = slip(t - second)
    steps = (
        f"{p.b} times {p.c} is {first}, {p.e} times {p.f} is {second}. "
        f"{p.a} plus {first} is {s}, plus {p.d} is {t}, minus {second} is {u}."
    )
    return Chain(problem=p, steps=steps, first=first, second=second, answer=u, right=not slip.made)


def _short(p: Problem, slip: Slips) -> Chain:
    first, second = slip(p.b * p.c), slip(p.e * p.f)
    u = slip(p.a + first + p.d - second)
    steps = f"In short.\n{p.a}+{first}+{p.d}-{second}={u}"
    return Chain(problem=p, steps=steps, first=first, second=second, answer=u, right=not slip.made)


STYLES: dict[str, tuple[Callable[[Problem, Slips], Chain], int]] = {
    "products": (_products, 6),
    "parts": (_parts, 5),
    "gather": (_gather, 4),
    "minus": (_minus, 3),
    "difference": (_difference, 3),
    "words": (_words, 1),
    "rewriting": (_rewriting, 1),
    "short": (_short, 1),
}
"""Ways to work, and how often each is taken, of 24."""


def work_out(rng: random.Random, problem: Problem, *, rate: float = 0.0, style: str = "") -> Chain:
    """Work out a problem in one style, drawn unless it is given, each step slipping at a rate."""
    style = style or rng.choices(list(STYLES), [share for _, share in STYLES.values()])[0]
    return STYLES[style][0](problem, Slips(rng, rate))
