"""What a lesson looks like, what gives a bad one away, and when two say the same. Pure functions over text."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher

LESSON_MIN, LESSON_MAX = 15, 400
"""Shortest and longest text of a lesson, in characters."""
SAME = 0.9
"""Share of words that near-equal lessons have in common, in order."""
_REPEATED = 0.8

_NAMES = r"(?:user|human|assistant|ai|system|checker|developer|tool)"
_INJECTION = re.compile(
    r"\b(?:ignore|disregard|forget|override|bypass)\s+(?:(?:all|any|the|your|my|of|these|those|every|previous|prior|"
    r"earlier|above|preceding|system|other)\s+)*(?:instructions?|rules?|prompts?|guidelines?|directions?|"
    r"everything\s+(?:above|before|you))\b"
    r"|\b(?:always|just|simply|must)\s+approve\b|\bapprove\s+(?:everything|anything|all|every|any)\b"
    r"|\byou\s+are\s+(?:now|no longer)\b|\bnew\s+(?:system\s+)?(?:instructions?|prompt|role)\s*:"
    r"|\b(?:reveal|print|show|repeat)\s+(?:me\s+)?(?:the|your)\s+(?:system\s+)?(?:prompt|instructions)\b"
    r"|\bjailbreak|\bdeveloper\s+mode\b|<\|[^|>]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?(?:system|assistant|user)>",
    re.IGNORECASE,
)
_ROLE = re.compile(rf"^[ \t*_#>]{{0,9}}{_NAMES}[*_]{{0,2}}[ \t]?:", re.IGNORECASE | re.MULTILINE)
_SPOKEN = re.compile(r"[.!?][ \t]+(?:User|Human|Assistant|AI|System|Checker|Developer)[ \t]?:")
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\bsk-[\w-]{16,}|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}"
    r"|\bA(?:KIA|SIA)[0-9A-Z]{16}\b|\bhf_[A-Za-z0-9]{20,}|\bxox[a-z]-[\w-]{10,}|\bAIza[\w-]{30,}"
    r"|://[^\s/:@]{0,64}:(?!\[redacted\])[^\s/@]{1,256}@"
    r"|\b(?i:password|passwd|secret|api[_ -]?key|access[_ -]?token)\b[\"'`]?\s*"
    r"(?:=\s*[\"'`]?(?!\[redacted\])[^\s\"'`]{6,}|(?::|is\b)\s*[\"'`]?(?!\[redacted\])(?=[^\s\"'`]{0,64}\d)[^\s\"'`]{6,})"
)
_CHATTER = re.compile(
    r"(?:(?:i'?m|i am|we'?re)\s+(?:\w+\s+)?sorry|sorry\b|(?:i\s+)?apologi[sz]e|(?:my\s+)?apologies|hello\b|hi\b|hey\b|"
    r"dear\b|thanks?\b|you'?re welcome|as an ai\b|"
    r"i\s+(?:cannot|can'?t|am unable to|can not)\s+(?:help|assist|comply|do)|"
    r"(?:sure|certainly|of course|great|okay|ok|absolutely|understood|got it|well done|good job)\s*[,!.:;-]|"
    r"here(?:'s| is| are)\s+(?:the|a|my|your)\b)",
    re.IGNORECASE,
)
_ACTION = re.compile(r"(?:^|[\n.!?]\s*)(?:Action|Final Answer|Act|Answer)\s*:", re.IGNORECASE)
_STATEMENT = (
    r"(?:SELECT\b.*\bFROM|INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|(?:CREATE|DROP|ALTER)\s+TABLE|"
    r"WITH\b.*\bSELECT)\b"
)
_SQL = re.compile(rf"{_STATEMENT}|(?i:{_STATEMENT})(?=.*[*=;])", re.DOTALL)
_LEARNED = re.compile(
    r"\b(?:because|since|next time|instead|should|must|fails?|failed|needs?|not|before|when)\b", re.IGNORECASE
)
_WIDE = "\u2e80-\u9fff\uf900-\ufaff"
"""Scripts without spaces, where each character says as much as several letters."""
_WORDS = re.compile(rf"[{_WIDE}]|(?:(?![{_WIDE}])\w)+")
_TELLING = re.compile(r"[`'\"]([^`'\"\n]{1,80})[`'\"]")
_TURNS = frozenset(
    "not no never always only without before after first last more less least most all any none both "
    "don t can cannot except unless do nothing left right up down true false min max asc desc and or".split()
)
"""Words that turn a sentence round: texts that differ in one of them do not say the same."""


def flaw_of(text: str, task: str = "") -> str:
    """Name what keeps a text from being a lesson; empty when nothing does.

    Example:
        >>> flaw_of("Compare the table's headers with the question before writing SQL.")
        ''
        >>> flaw_of("Sorry, I cannot help with that.")
        'It is a greeting, an apology or small talk.'

    """
    stripped = text.strip()
    if not stripped:
        return "It is empty."
    if found := suspicion_of(stripped):
        return found
    if _CHATTER.match(stripped):
        return "It is a greeting, an apology or small talk."
    if len(stripped) + len(re.findall(f"[{_WIDE}]", stripped)) < LESSON_MIN:
        return f"It is shorter than {LESSON_MIN} characters."
    if len(stripped) > LESSON_MAX:
        return f"It is longer than {LESSON_MAX} characters."
    if _is_answer(stripped):
        return "It is an answer or an action, not a lesson."
    if task and _repeats(stripped, task):
        return "It only repeats the task."
    return ""


def suspicion_of(text: str) -> str:
    """Name what makes a text unfit for any prompt: orders to whoever reads it, another's name, a secret."""
    if _INJECTION.search(text):
        return "It gives orders that no lesson gives."
    if _ROLE.search(text) or _SPOKEN.search(text):
        return "It speaks in another role's name."
    return "It holds a secret." if _SECRET.search(text) else ""


def shorten(text: str, limit: int = LESSON_MAX) -> str:
    """Bring a text to one line of at most `limit` characters: to its last whole sentence there, or its last word."""
    line = " ".join(text.split())
    if len(line) <= limit:
        return line
    head = line[:limit]
    ends = [m.end() for m in re.finditer(r"[.!?](?=\s)", line[: limit + 1])]
    if ends and ends[-1] > limit // 3:
        return head[: ends[-1]]
    return head.rsplit(" ", 1)[0] if " " in head else head


def words_of(text: str) -> list[str]:
    """Return a text's words as they are compared: without case and punctuation."""
    return _WORDS.findall(text.casefold())


def likeness(one: str, other: str) -> float:
    """Return the share of words that two texts have in common, 0..1, whatever their order."""
    return likeness_to(one)(other)


def likeness_to(one: str) -> Callable[[str], float]:
    """Return what tells how like other texts are to this one."""
    a = set(words_of(one))

    def like(other: str) -> float:
        b = set(words_of(other))
        return len(a & b) / len(a | b) if a and b else float(one.strip() == other.strip())

    return like


def same_lesson(one: str, other: str) -> bool:
    """Tell whether two lessons say the same in nearly the same words.

    A number, a quoted name or a word such as `not` that only one of them has makes them two lessons.
    """
    a, b = words_of(one), words_of(other)
    if a == b:
        return bool(a) or one == other
    matcher = SequenceMatcher(None, a, b, autojunk=False)
    if matcher.real_quick_ratio() < SAME or matcher.quick_ratio() < SAME or matcher.ratio() < SAME:
        return False
    differing = set(a) ^ set(b)
    telling = _TURNS.union(_quoted(one), _quoted(other))
    return not any(word in telling or any(map(str.isdigit, word)) or "_" in word for word in differing)


def is_known(text: str, known: Iterable[str]) -> bool:
    """Tell whether a text says what one of the known ones says."""
    return any(same_lesson(text, each) for each in known)


def _quoted(text: str) -> set[str]:
    return {word for quoted in _TELLING.findall(text) for word in words_of(quoted)}


def _is_answer(text: str) -> bool:
    if "```" in text or _ACTION.search(text):
        return True
    if _SQL.match(text) and not _LEARNED.search(text):
        return True
    if text[0] + text[-1] in ("[]", "{}", "()"):
        return True
    try:
        return not isinstance(json.loads(text), str)
    except (ValueError, RecursionError):
        return " " not in text and text.isascii()


def _repeats(text: str, task: str) -> bool:
    mine, given = words_of(text), words_of(task)
    if not mine:
        return True
    inside = f" {' '.join(mine)} " in f" {' '.join(given)} "
    return inside or likeness(text, task) >= _REPEATED
