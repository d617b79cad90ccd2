"""Take secrets out of text before it is recorded.

Only forms that nobody writes by chance go without being asked: passwords and tokens in URLs, authorization headers,
the well-known key formats. Everything else is named by the caller. Where text is recorded is up to others.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

REDACTED = "[redacted]"
"""What stands in place of a secret."""
ENV_VALUE_MIN = 6
"""Shorter values of environment variables stay: `1` or `true` would go everywhere."""


class Redactor:
    """Replaces secrets by `[redacted]` and leaves the text around them.

    Redacting twice changes nothing more, and text that holds no secret comes back as the same object.

    Args:
        names: Settings whose values are secret, such as `OPENAI_API_KEY`; in any case of letters. Goes as
            `name=value`, `name: value`, `"name": "value"`, as a dict's value, and wherever the present value of the
            environment variable of that name stands. A value without quotes ends at a space, a quote, or `&` `,` `;`.
        patterns: Further secrets; where a pattern has a group named `secret`, only that group goes.
        values: Literal secrets; as they stand, and as JSON or a URL would write them.

    Example:
        >>> Redactor(names=["pin"]).text("postgresql://me:hunter2@db/shop, pin=1234")
        'postgresql://me:[redacted]@db/shop, pin=[redacted]'

    """

    def __init__(
        self,
        names: Iterable[str] = (),
        patterns: Iterable[str | re.Pattern[str]] = (),
        values: Iterable[str] = (),
    ) -> None:
        names = [name for name in names if name]
        held = [value for name in names if len(value := os.environ.get(name, "")) >= ENV_VALUE_MIN]
        self._names = frozenset(name.casefold() for name in names)
        # Names after both: `pin: two words` and `authorization: Basic ...` are read while their first word stands.
        self._rules = [
            *_value_rules([*held, *values]),
            *_KNOWN,
            *_name_rules(names),
            *(_Rule(needles=("",), pattern=re.compile(pattern)) for pattern in patterns),
        ]

    def text(self, text: str) -> str:
        """Return the text without its secrets."""
        # One secret gone may lay bare another, so until nothing changes. It ends: each round leaves less outside marks.
        while (cleaned := self._round(text)) != text:
            text = cleaned
        return text

    def value(self, obj: Any) -> Any:
        """Return a copy of dicts, lists and tuples without the secrets in their texts; other things as they are."""
        if isinstance(obj, str):
            return self.text(obj)
        if isinstance(obj, dict):
            return {self.value(key): self._entry(key, inner) for key, inner in obj.items()}
        if isinstance(obj, list):
            return [self.value(inner) for inner in obj]
        if isinstance(obj, tuple):
            return tuple(self.value(inner) for inner in obj)
        return obj

    def _entry(self, key: Any, inner: Any) -> Any:
        named = isinstance(key, str) and key.casefold() in self._names
        return REDACTED if named else self.value(inner)

    def _round(self, text: str) -> str:
        folded = text.casefold() if self._names else ""
        for rule in self._rules:
            searched = folded if rule.folded else text
            for needle in rule.needles:
                if needle in searched:
                    text = rule.apply(text)
                    break
        return text


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """One form of secret.

    Patterns must take linear time on any text: a quantifier without bounds is possessive (of one sign) or in an atomic
    group, comes last, or starts where no other attempt reached.
    """

    needles: tuple[str, ...]
    """Text without any of these is not searched, which is what makes ordinary text cheap."""
    folded: bool = False
    """The needles are case-folded, and so is the text in which they are looked for."""
    pattern: re.Pattern[str]
    """Its group `secret` goes, or all of the match when there is no such group."""
    accept: Callable[[str], bool] = bool
    """The last word on whether it is a secret."""
    within: re.Pattern[str] | None = None
    """Only inside what this matches."""

    def apply(self, text: str) -> str:
        if self.within is None:
            return self.pattern.sub(self._hide, text)
        return self.within.sub(lambda found: self.pattern.sub(self._hide, found[0]), text)

    def _hide(self, match: re.Match[str]) -> str:
        group = "secret" if "secret" in self.pattern.groupindex else 0
        start, end = match.span(group)
        if _inside_mark(match.string, start) or _inside_mark(match.string, end) or not self.accept(match[group] or ""):
            return match[0]
        return match.string[match.start() : start] + REDACTED + match.string[end : match.end()]


def _inside_mark(text: str, at: int) -> bool:
    reach = len(REDACTED) - 1
    return text.find(REDACTED, max(0, at - reach), at + reach) >= 0


def _is_token(text: str) -> bool:
    """Tell `Bearer 3f9a...` from "bearer authentication"."""
    mixed = any(map(str.isdigit, text)) and any(map(str.isalpha, text))
    return mixed or (len(text) >= 24 and text.isalnum())


def _is_basic(text: str) -> bool:
    """Tell the base64 of `user:password` from "basic understanding"."""
    try:
        return ":" in base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False


_MARK = re.escape(REDACTED)
_BREAK = r"(?:\s|\\[nrt])"
"""White space, also as JSON and source code write it."""
_QUERY = re.compile(r"""\?[\w.~%\[\]-]++[=&][^\s"'<>]++""")
_SECRET_PARAMETERS = (
    "key|api[_-]?key|subscription[_-]key|token|(?:access|auth|refresh|id|session|x-amz-security)[_-]?token|jwt|auth|"
    "secret|client[_-]?secret|password|passwd|pwd|sig|signature|x-(?:amz|goog)-(?:signature|credential)"
)

_KNOWN = (
    _Rule(  # complete, or cut off and still a page of base64
        needles=("PRIVATE KEY",),
        pattern=re.compile(
            rf"-----BEGIN [A-Z0-9 ]{{0,40}}PRIVATE KEY(?: BLOCK)?-----(?>{_BREAK}+)"
            rf"(?P<secret>(?>(?:[^-]++|-(?!----))+)(?=-----END)|[\w+/=]{{16,}}+(?>(?:{_BREAK}+[\w+/=]{{16,}}+)*))"
        ),
    ),
    # The password of `scheme://user:password@host`, but no port, no IPv6 address and no placeholder. Raw slashes are
    # no URL, yet SQLAlchemy takes them.
    _Rule(
        needles=("://",),
        pattern=re.compile(
            r"""://(?!\[[\da-fA-F:.]*\])[^\s/?#:@"'<>]*:(?!\d*[/?#\\])"""
            r"""(?!(?:\{[^{}@\s]*\}|\$\{?\w+\}?|%s|\*+)@)"""
            r"""(?P<secret>[^\s/"'<>]+(?=@)|[^\s"'<>@]{1,256}(?=@))"""
        ),
    ),
    _Rule(
        needles=("?",),
        pattern=re.compile(
            rf"""(?i)[?&;](?:{_SECRET_PARAMETERS})=(?![{{$=])(?P<secret>(?:{_MARK}|[^\s&#"'<>`])+(?<![).,;]))"""
        ),
        within=_QUERY,
    ),
    _Rule(
        needles=("uthorization",),
        pattern=re.compile(
            r"""uthorization(?i:[\\"'\]]{0,5}[ \t]*[:=][ \t]*f?[\\"']{0,4}(?:bearer|basic|token|apikey)[ \t]+)"""
            rf"(?P<secret>(?:{_MARK}|[\w.~+/=:-])+)"
        ),
    ),
    _Rule(
        needles=("earer ",),
        pattern=re.compile(r"earer(?<=\b[Bb]earer)[ \t]+(?P<secret>[\w.~+/=-]{8,})"),
        accept=_is_token,
    ),
    _Rule(
        needles=("asic ",),
        pattern=re.compile(r"asic(?<=\b[Bb]asic)[ \t]+(?P<secret>[A-Za-z0-9+/]{4,}={0,2})"),
        accept=_is_basic,
    ),
    _Rule(  # a JSON Web Token; the look-behind also keeps `eyJeyJeyJ...` linear
        needles=(".eyJ",),
        pattern=re.compile(r"(?<![\w-])(?=[\w-]*eyJ)[\w-]++\.eyJ[\w-]++(?:\.[\w-]*+)?"),
    ),
    # OpenAI, Anthropic and those who copy them; a class of CSS has neither digit nor capital
    _Rule(
        needles=("sk-",),
        pattern=re.compile(
            r"sk-(?<![A-Za-z0-9]sk-)(?:ant-[\w-]{8,}|[A-Za-z0-9]{20,}[\w-]*|(?=[a-z_-]{0,40}[A-Z0-9])[\w-]{20,})"
        ),
    ),
    _Rule(
        needles=("_",),  # one search for `gh` is cheaper than five for the forms
        pattern=re.compile(r"gh[pousr]_(?<![A-Za-z0-9]gh._)[A-Za-z0-9]{20,}"),
    ),
    _Rule(needles=("github_pat_",), pattern=re.compile(r"github_pat_(?<![A-Za-z0-9]github_pat_)\w{20,}")),
    _Rule(needles=("xox",), pattern=re.compile(r"xox[a-z]-(?<![A-Za-z0-9]xox.-)(?=[a-zA-Z-]{0,40}\d)[\w-]{10,}")),
    _Rule(
        needles=("AKIA", "ASIA"),
        pattern=re.compile(r"A(?:KIA|SIA)(?<![A-Za-z0-9]A...)[0-9A-Z]{16}(?![A-Za-z0-9])"),
    ),
    _Rule(needles=("AIza",), pattern=re.compile(r"AIza(?<![A-Za-z0-9]AIza)[\w-]{30,}")),
    _Rule(needles=("hf_",), pattern=re.compile(r"hf_(?<![A-Za-z0-9]hf_)[A-Za-z0-9]{20,}")),
)


def _name_rules(names: list[str]) -> Iterator[_Rule]:
    if not names:
        return
    known = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    # Doubled or after a backslash, a quote goes on; what can be neither is taken at once.
    quoted = r"""(?>(?:[^\n\\"'`]++|(?P=quote){2}|(?!(?P=quote))(?:\\.|[^\n\\]))+)"""
    nested = rf"(?!{_MARK})[{{\[][^{{}}\[\]]*[}}\]]"
    word = rf"""(?:{_MARK}|[^\s"'`&;,{{\[(])[^\s"'`&;,]*(?:(?<={_MARK})|(?<![)}}\].\\]))"""
    yield _Rule(
        needles=tuple(name.casefold() for name in names),
        folded=True,
        pattern=re.compile(
            rf"""(?i)(?<!\w)(?:{known})(?!\w)\\{{0,3}}["'`]?\]?[ \t]*(?::(?!:)=?|==?>?)[ \t]*"""
            rf"""(?>(?P<quote>\\{{0,3}}["'`])?)"""
            rf"(?P<secret>(?(quote){quoted}|(?:(?:bearer|basic|token|apikey)[ \t]+)?(?:{nested}|{word})))"
        ),
    )


def _value_rules(values: list[str]) -> Iterator[_Rule]:
    spelled = {form for value in values for form in _spellings(value) if form}
    if spelled:
        longest_first = sorted(spelled, key=lambda form: (-len(form), form))
        yield _Rule(
            needles=tuple(longest_first),
            pattern=re.compile("|".join(map(re.escape, longest_first))),
        )


def _spellings(value: str) -> Iterator[str]:
    yield value
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield quote(value, safe="", errors="surrogatepass")
