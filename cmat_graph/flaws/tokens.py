"""A SQL statement as tokens: words, quoted names, strings, signs; joined again they are the statement as it was."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(r"`[^`]*`|\"[^\"]*\"|'(?:[^']|'')*'|\d+(?:\.\d+)?|\w+|<>|!=|<=|>=|\s+|.", re.DOTALL)
Tokens = list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableShape:
    """What is known of the table that a statement is about."""

    name: str
    columns: Sequence[str]
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values that occur in each column; wrong values are drawn from them."""


def tokenise(sql: str) -> Tokens:
    """Cut a statement into tokens.

    Example:
        >>> tokenise("SELECT `a b`")
        ['SELECT', ' ', '`a b`']

    """
    return _TOKEN.findall(sql)


def put(tokens: Tokens, at: int, token: str) -> str:
    """Replace one token."""
    return "".join([*tokens[:at], token, *tokens[at + 1 :]])


def bare(token: str) -> str:
    """Return a token without its quotes."""
    quoted = len(token) > 1 and token[0] == token[-1] and token[0] in "`\"'"
    return token[1:-1].replace("''", "'") if quoted else token


def like(token: str, name: str) -> str:
    """Write a name in the quotes of the token it replaces; a name that needs some gets them."""
    if token[0] in '`"':
        return f"{token[0]}{name}{token[0]}"
    return name if name.isidentifier() else f'"{name}"'


def is_string(token: str) -> bool:
    """Tell whether a token is a string."""
    return token.startswith("'")


def as_string(value: str) -> str:
    """Write a string."""
    return "'" + value.replace("'", "''") + "'"


def tick(name: str) -> str:
    """Write a name in backticks."""
    return f"`{name}`"


def column_at(tokens: Tokens, at: int, table: TableShape) -> str:
    """Return the column that a token names, or nothing."""
    if is_string(tokens[at]) or is_table(tokens, at, table):
        return ""
    name = bare(tokens[at]).casefold()
    return next((column for column in table.columns if column.casefold() == name), "")


def is_table(tokens: Tokens, at: int, table: TableShape) -> bool:
    """Tell whether a token names the table."""
    before = next((token.upper() for token in reversed(tokens[:at]) if not token.isspace()), "")
    return before in ("FROM", "INTO", "UPDATE", "JOIN") and bare(tokens[at]).casefold() == table.name.casefold()
