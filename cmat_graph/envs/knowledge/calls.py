"""Read one turn of the assistant: `Action: tool(arguments)`, or `Final Answer: #id`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

TOOLS = {
    "get_relations": 1,
    "get_neighbors": 2,
    "intersection": 2,
    "get_attributes": 1,
    "argmax": 2,
    "argmin": 2,
    "count": 1,
}
"""AgentBench's tools, and how many arguments each takes."""
_FINAL = re.compile(r"(?:find|final)\s+answer[ \t]*:[ \t*`]*(?:variable[ \t]*)?#[ \t]*(\d{1,6})(?!\d)", re.IGNORECASE)
_FINAL_LINE = re.compile(r"^[^\w\n]*final[ \t]+answer[ \t]*:", re.IGNORECASE | re.MULTILINE)
_ACTION = re.compile(r"^[^\w\n]*action[^:\n]{0,20}:", re.IGNORECASE | re.MULTILINE)
_NAME = re.compile(r"[\s*]*+(?>(?:```\w*+[ \t]*+\n)?)[\s`*]*+(\w++)[ \t]*+\(")
"""A call's name, maybe in a block of code; nothing is given back, so that long texts take no longer than they are."""
_VARIABLE = re.compile(r"(?:variable\s*)?#\s*(\d{1,6})", re.IGNORECASE)
_QUOTES = {'"': '"', "'": "'", "`": "`", "[": "]", "“": "”"}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call, its arguments as they were written."""

    tool: str
    arguments: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """The variable that is said to be the answer."""

    variable: int


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Why nothing could be read."""

    why: Literal["no action", "no variable", "no call"]


def parse_reply(reply: str) -> ToolCall | FinalAnswer | Unreadable:
    r"""Read a reply; what follows an `Observation:` of its own is not looked at, and a final answer comes first.

    Example:
        >>> parse_reply("Thought: Who lives there?\nAction: get_neighbors(Port Ilo, town.natives)")
        ToolCall(tool='get_neighbors', arguments=('Port Ilo', 'town.natives'))

    """
    said = reply.split("Observation:", 1)[0].replace("\\_", "_")
    if final := _FINAL.search(said):
        return FinalAnswer(int(final.group(1)))
    action = _ACTION.search(said)
    if action is None:
        return Unreadable("no variable" if _FINAL_LINE.search(said) else "no action")
    called = _NAME.match(said, action.end())
    inside = _inside(said, called.end()) if called is not None else None
    if called is None or inside is None:
        return Unreadable("no call")
    tool = called.group(1).lower()
    most = -1 if tool == "intersection" else TOOLS.get(tool, 1) - 1  # commas stand in names, in no relation
    parts = inside.rsplit(",", most)
    return ToolCall(tool, tuple(part.strip() for part in parts))


def read_variable(argument: str) -> int | None:
    """Return the number of a variable such as `#0`; None where it is none."""
    found = _VARIABLE.fullmatch(unquoted(argument))
    return int(found.group(1)) if found else None


def unquoted(argument: str) -> str:
    """Return an argument without quotes or brackets around all of it."""
    text = argument.strip()
    while len(text) > 1 and _QUOTES.get(text[0]) == text[-1]:
        text = text[1:-1].strip()
    return text


def _inside(text: str, start: int) -> str | None:
    """Return what stands in the brackets that were opened before `start`, on that line.

    Names hold brackets too, mostly in pairs; where they do not pair up, the line's last one closes.
    """
    line = text[start:].split("\n", 1)[0]
    depth = 1
    for at, letter in enumerate(line):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return line[:at]
    end = line.rfind(")")
    return line[:end] if end >= 0 else None
