"""Tables and columns under other names, the same ones throughout a conversation: question, statements and results.

Names are known by their backticks in the assistant's statements, and by the task's own list of headers. Values in
quotes are left alone, as are the rules in system messages.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_TICKED = re.compile(r"`([^`\n]{1,64})`")
_DECLARED = re.compile(r"The name of this table is (.+?), and the headers of this table are (.+?)\.?\s*$", re.MULTILINE)
_QUOTED = re.compile(r"(?<!\w)'[^'\n]*'(?!\w)|\"[^\"\n]*\"")
_TABLE_NEXT = re.compile(r"\b(?:FROM|JOIN|INTO|UPDATE)\s*$", re.IGNORECASE)
_BLOCK = re.compile(r"(```.*?```)", re.DOTALL)
_OF_TABLES = ("{} table", "{} list", "{} records", "all {}", "{} book")
_OF_COLUMNS = ("{} value", "{} field", "{} entry", "the {}", "{} info", "{} data")
_KEYWORDS = frozenset(
    "ALL AND AS ASC AVG BETWEEN BY CASE COUNT CREATE DELETE DESC DISTINCT DROP ELSE END EXISTS FROM GROUP HAVING IN "
    "INNER INSERT INTO IS JOIN LEFT LIKE LIMIT MAX MIN NOT NULL ON OR ORDER SELECT SET SUM TABLE THEN UNION UPDATE "
    "VALUES WHEN WHERE".split()
)


def declared_names(text: str) -> list[str]:
    """Return the table and the headers that a task lists."""
    found = _DECLARED.search(text)
    return [found[1], *(name.strip() for name in found[2].split(","))] if found else []


def new_names(messages: Sequence[Mapping[str, Any]], text: str, *, seed: str) -> dict[str, str]:
    """Choose another name for each table and column; empty where there are none.

    Args:
        messages: The conversation.
        text: The task.
        seed: Decides which names.

    """
    declared = declared_names(text)
    ticked = (
        name for m in messages if m["role"] == "assistant" for each in _texts(m) for name in _TICKED.findall(each)
    )
    everything = "\n".join(each for message in messages for each in _texts(message))
    names: dict[str, str] = {}
    known: dict[str, str] = {}
    taken: set[str] = set()
    for name in dict.fromkeys([*declared, *ticked]):
        if len(name) < 2 or name.upper() == name in _KEYWORDS or not re.search(r"[^\W\d]", name):
            continue
        if name.lower() in known:  # to a database it is the same name
            names[name] = known[name.lower()]
            continue
        forms = _OF_TABLES if declared[:1] == [name] else _OF_COLUMNS
        start = int(hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()[:8], 16)
        for step in range(len(forms)):
            new = _styled(forms[(start + step) % len(forms)], name)
            if new not in taken and new.lower() not in everything.lower():
                names[name] = known[name.lower()] = new
                taken.add(new)
                break
    return names


def rename(message: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a message with the new names."""
    if message["role"] == "system":
        return dict(message)
    new = {**message, "content": rename_text(message["content"], names)}
    if message.get("reasoning"):
        new["reasoning"] = rename_text(message["reasoning"], names)
    if message.get("tool_calls"):
        new["tool_calls"] = [{**call, "args": _walk(call["args"], names)} for call in message["tool_calls"]]
    return new


def rename_text(text: str, names: Mapping[str, str], *, code: bool = False) -> str:
    """Put the new names into a text; what stands in quotes is a value, and stays.

    In a statement, double quotes are around names as well.

    Args:
        text: Where the old names are.
        names: New names by old ones.
        code: Whether all of it is a statement; else only what stands in a code block is.

    Example:
        >>> rename_text("The Due of 'Due' is in `Due`.", {"Due": "Due_value"})
        "The Due_value of 'Due' is in `Due_value`."

    """
    pattern = re.compile(
        r"(?<!\w)(?:" + "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)) + r")(?!\w)"
    )
    if code:
        return _rename_part(text, names, pattern, code=True)
    parts = _BLOCK.split(text)  # every second one is a code block
    return "".join(_rename_part(part, names, pattern, code=at % 2 == 1) for at, part in enumerate(parts))


def _rename_part(text: str, names: Mapping[str, str], pattern: re.Pattern[str], *, code: bool) -> str:
    out, at = [], 0
    for quoted in _QUOTED.finditer(text):
        inner = quoted[0][1:-1]
        is_name = code and inner in names and (quoted[0][0] == '"' or _TABLE_NEXT.search(text[: quoted.start()]))
        out += [pattern.sub(lambda found: names[found[0]], text[at : quoted.start()])]
        out += [f"{quoted[0][0]}{names[inner]}{quoted[0][0]}" if is_name else quoted[0]]
        at = quoted.end()
    return "".join([*out, pattern.sub(lambda found: names[found[0]], text[at:])])


def _walk(value: Any, names: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return rename_text(value, names, code=True)
    if isinstance(value, Mapping):
        return {key: _walk(each, names) for key, each in value.items()}
    return [_walk(each, names) for each in value] if isinstance(value, list) else value


def _texts(message: Mapping[str, Any]) -> Iterable[str]:
    yield message["content"]
    for call in message.get("tool_calls") or ():
        yield from (value for value in call["args"].values() if isinstance(value, str))


def _styled(form: str, name: str) -> str:
    """Write a new name in the style of the old: `snake_case`, Snake_Case, or Words. One word stays one word, since
    statements may name it without any quotes.
    """
    words = form.format(name).split(" ")
    if not name[0].islower():
        words = [word[0].upper() + word[1:] for word in words if word]
    return ("_" if re.fullmatch(r"\w+", name) else " ").join(words)
