r"""Write a final answer of MATH in one way: `tidy` keeps it LaTeX, `plain` makes one line of algebra of it.

The rules are those of Hendrycks' MATH grader and of the normaliser that graders since put behind it: wrappers, units,
degrees, percent and currency signs, spaces and short `x =` prefixes go; fractions and roots get their braces; numbers
lose commas and needless zeros; `million` is multiplied in; mixed numbers are sums; case does not count.
"""

from __future__ import annotations

import re

from cmat_graph.answers.folding import THIN, fold
from cmat_graph.answers.latex_reader import read_latex
from cmat_graph.answers.numbers import write_number

LONGEST = 2_000
"""Answers of more characters are compared as they stand."""
_GONE = re.compile(
    r"(?<!\\)\\!|\\(?:left|right|[bB]igg?[lrm]?|displaystyle|textstyle|limits)(?![A-Za-z])\s*\.?"
    r"|\^\s*\{?\s*\\circ\s*\}?|\\degree(?![A-Za-z])|°|\\?[%$€£]|\\[()]|\\\[|\\\](?!\s*\d)"
)
_SPACES = re.compile(rf"(?<!\\)\\[,;: ]|~|\\q?quad(?![A-Za-z])|[\s{THIN}]+")
_WRAPPED = r"\\(?:text(?:bf|it|rm|normal)?|mathrm|mathbf|mbox|textnormal|operatorname)\s*\{([^{}]*)\}"
_ALL_TEXT = re.compile(_WRAPPED)
_UNIT_TEXT = re.compile(rf"(?<=[\w)}}\]])\s*(?:\\[,;: ])?\s*{_WRAPPED}(?:\s*\^\s*\{{?\d\}}?)?(?:\s*/?\s*{_WRAPPED})?$")
_JOINING = re.compile(r"\\(?:text|mbox|mathrm)\s*\{\s*,?\s*(?:or|and)\s*\}")
_JOINING_WORD = re.compile(r",?\s+(?:or|and)\s+")
_UNIT = re.compile(
    r"(?<=[\d)}])\s*(?:square\s+|cubic\s+|sq\.?\s*)?"
    r"(?:degree|percent|dollar|cent|unit|(?:milli|centi|kilo)?(?:meter|metre|gram|liter|litre)|mile|foot|feet|inche?|yard"
    r"|second|minute|hour|day|week|month|year|pound|ounce|cm|mm|km|kg|ml|mph|point|people|way)s?"
    r"(?:\s*\^\s*\{?\d\}?)?\s*$",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"^[^=]{0,2}=\s*(?=[^=]+$)|^\\[A-Za-z]+\s*=\s*(?=[^=]+$)|^[A-Za-z]\s*\\in(?![A-Za-z])\s*")
_MIXED = re.compile(r"(?<![\w./])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\w./])")
_THOUSANDS = re.compile(r"(?<![\d.])(\d{1,3})((?:(?:,|\{,\}|\s)\d{3})+)(?!\d)")
_GROUPED = re.compile(r"(?<![\d.])(\d{1,3})((?:\{,\}\d{3})+)(?!\d)")
_SCALE = re.compile(r"(\d+)(?:\.(\d+))?\s*(m|b|tr)illion(?![A-Za-z])", re.IGNORECASE)
_ZEROS = {"m": 6, "b": 9, "tr": 12}
_DECIMAL = re.compile(r"(?<![\w.])(\d*)\.(\d+)(?![\w.])|(?<![\w.])0+(\d+)(?![\w.])")


def tidy(text: str) -> str:
    r"""Take away what is no part of an answer, and leave it as LaTeX.

    Example:
        >>> tidy(r"$x = \dfrac12\text{ cm}$.")
        '\\frac12'

    """
    text = fold(text).strip()
    if len(text) > LONGEST:
        return text
    if "\\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z])", r"\\", text)  # commands that were escaped twice
    text = _GONE.sub("", _JOINING.sub(",", text).replace("\\\n", "\n"))
    text = re.sub(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", text)
    text = re.sub(r",\\!\s*(?=\d{3})", "{,}", text)
    text = _SPACES.sub(" ", text).strip().rstrip(".,; ").strip()
    whole = _ALL_TEXT.fullmatch(text)
    text = whole.group(1).strip() if whole else _UNIT_TEXT.sub("", text).strip()
    return _PREFIX.sub("", text, count=1).strip()


def plain(text: str) -> str:
    r"""Write a tidied answer as one line of algebra without spaces, or a text in lower case.

    Example:
        >>> plain(r"1\frac{1}{2}"), plain(r"\sqrt{2}\pi"), plain("$1,000"), plain(".50")
        ('(1+1/2)', 'sqrt(2)pi', '1000', '0.5')

    """
    if len(text) > LONGEST:
        return text
    text = _UNIT.sub("", tidy(text))
    text = _MIXED.sub(r"\1\\frac{\2}{\3}", text)
    thousands = _GROUPED if text.startswith(("(", "[", "\\{")) else _THOUSANDS
    text = thousands.sub(lambda found: found.group(1) + re.sub(r"\D", "", found.group(2)), text)
    text = _JOINING_WORD.sub(",", _SCALE.sub(_scaled, text))
    line = read_latex(text).lower()
    return _DECIMAL.sub(lambda found: write_number("", found[1] or found[3] or "0", found[2] or ""), line)


def _scaled(found: re.Match[str]) -> str:
    """Write out a number of millions."""
    zeros = _ZEROS[found[3].lower()]
    part = (found[2] or "").ljust(zeros, "0")
    return write_number("", found[1] + part[:zeros], part[zeros:])
