"""Numbers as final answers: found in a reply, written in one way, compared exactly and never as floats."""

from __future__ import annotations

import re
from fractions import Fraction

from cmat_graph.answers.boxed import last_boxed
from cmat_graph.answers.folding import THIN, fold

MOST_DIGITS = 50
"""Of a fraction's parts; plain numbers may be of any length."""
_APART = rf"(?:,|\\,|\{{,\}}|,\\!|{THIN})"
"""What parts thousands."""
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w)\]}}%])[-+])?            # a minus between two terms is no sign
    (?:\\?[$€£][ ]?)?(?P<sign2>(?<=[$€£])[-+])?
    (?: (?<![^\W_])(?<!\d\.)(?<!\d/)(?<!\^)(?<!\^\{{)(?<!_\{{)      # not inside a word, a number or an exponent
        (?P<whole>\d{{1,3}}+(?>(?:{_APART}\d{{3}}){{1,100}})(?!\d) | \d++)(?P<part>\.\d++)?
      | (?<![\w.])(?P<bare>\.\d++)
    )
    (?P<power>[eE][-+]?\d{{1,3}}+(?!\w))?
    (?P<over>/[1-9]\d*+(?![\d/]|\.\d))?
    (?!(?:st|nd|rd|th)\b|[eE][-+]?\d|/\d|\^)  # no ordinal, no power, no date
    """,
    re.VERBOSE,
)
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(-?\d{1,50})\}\{(\d{1,50})\}")
_BRACES = re.compile(r"(?<![\^_}A-Za-z\\])\{([\d.,$\s-]++)\}")
_MARKER = re.compile(r"####|\banswer\s*+\**+\s*+[:=]", re.IGNORECASE)
_SIGN_APART = re.compile(r"[=:]\s*-\s+$")


def extract_number(reply: str) -> str | None:
    r"""Return the number a reply ends with, written as `write_number` writes it; None where there is none.

    Looked for in this order: in the last `\boxed`; in the last braces that hold a number alone; after the last `####`
    or `Answer:`; the last number of all. Thousands separators are dropped, signs count, a decimal comma does not exist.

    Example:
        >>> extract_number("So she pays 3 * $700 = $2,100.00.")
        '2100'

    """
    text = _FRACTION.sub(r" \1\2/\3", fold(reply))
    box = last_boxed(text)
    if box is not None and (number := last_number(box)):
        return number
    for group in reversed(_BRACES.findall(text)):
        if number := last_number(group):
            return number
    marks = list(_MARKER.finditer(text))
    if marks and (number := _after(text, marks[-1].end())):
        return number
    return last_number(text)


def extract_integer(reply: str) -> str | None:
    """Return the whole number a reply ends with (`12.0` is 12); None where it ends with none."""
    number = extract_number(reply)
    return None if number is None or "." in number or "/" in number else number


def last_number(text: str) -> str | None:
    """Return the last number of a folded text."""
    for found in reversed(list(_NUMBER.finditer(text))):
        if number := _written(text, found):
            return number
    return None


def same_number(left: str, right: str) -> bool:
    """Tell whether two texts are the same number; texts that are no numbers have to be equal.

    Example:
        >>> same_number("12.0", "12"), same_number("1/2", "0.5"), same_number("1,000", "1000")
        (True, True, True)

    """
    return left == right or _canonical(left) == _canonical(right)


def write_number(sign: str, whole: str, part: str = "") -> str:
    """Write a decimal number in one way: no leading or trailing zeros, no minus before zero."""
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    text = f"{whole}.{part}" if part else whole
    return f"-{text}" if sign == "-" and text != "0" else text


def write_fraction(value: Fraction) -> str:
    """Write a fraction as a decimal number where that ends, else reduced as `a/b`."""
    below, twos, fives = value.denominator, 0, 0
    while below % 2 == 0:
        below, twos = below // 2, twos + 1
    while below % 5 == 0:
        below, fives = below // 5, fives + 1
    if below != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    cut = len(digits) - places
    return write_number("-" if value < 0 else "", digits[:cut], digits[cut:])


def _canonical(text: str) -> str:
    folded = fold(text).strip()
    found = _NUMBER.fullmatch(folded)
    return (_written(folded, found) if found else None) or folded


def _after(text: str, start: int) -> str | None:
    """Read the line after a marker: the number it begins with, or where it goes on to reckon, the last."""
    line = text[start:].lstrip().split("\n", 1)[0].lstrip("*_ \t(")
    first = _NUMBER.match(line)
    if first and "=" not in line and (number := _written(line, first)):
        return number
    return last_number(line)


def _written(text: str, found: re.Match[str]) -> str | None:
    sign = found["sign"] or found["sign2"] or ""
    if not sign and _SIGN_APART.search(text[max(0, found.start() - 8) : found.start()]):
        sign = "-"
    whole = re.sub(r"\D", "", found["whole"] or "")
    part = (found["part"] or found["bare"] or ".")[1:]
    if found["power"]:
        whole, part = _shift(whole, part, int(found["power"][1:]))
    plain = write_number(sign, whole, part)
    if not found["over"]:
        return plain
    below = found["over"][1:]
    if max(len(plain), len(below)) > MOST_DIGITS:
        return None
    return write_fraction(Fraction(plain) / int(below))


def _shift(whole: str, part: str, places: int) -> tuple[str, str]:
    """Move the decimal point to the right, or to the left where `places` is negative."""
    if places >= 0:
        part = part.ljust(places, "0")
        return whole + part[:places], part[places:]
    whole = whole.rjust(-places + 1, "0")
    return whole[:places], whole[places:] + part
