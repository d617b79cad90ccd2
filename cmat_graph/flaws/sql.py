"""Break a SQL statement: names, values, operators, clauses, spelling.

The statement is cut into words, quoted names, strings and signs, one of them is changed, and the rest stays as it was
written; so any dialect and any layout will do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from cmat_graph.flaws.flaw import Flaw, misspell
from cmat_graph.flaws.tokens import (
    TableShape,
    Tokens,
    as_string,
    bare,
    column_at,
    is_string,
    is_table,
    like,
    put,
    tick,
    tokenise,
)
from cmat_graph.types import Category

_AGGREGATES = {
    "MAX": ("MIN", "COUNT"), "MIN": ("MAX", "COUNT"), "SUM": ("AVG", "COUNT"), "AVG": ("SUM", "MAX"),
    "COUNT": ("SUM", "MAX"),
}  # fmt: skip
_OPERATORS = {"=": "!=", "!=": "=", "<>": "=", "<": ">", ">": "<", "<=": ">=", ">=": "<=", "AND": "OR"}
_KEYWORDS = ("SELECT", "UPDATE", "INSERT", "DELETE", "FROM", "WHERE", "VALUES", "INTO", "SET", "ORDER", "LIMIT")

T = TypeVar("T")


def break_sql(sql: str, table: TableShape, rng: random.Random) -> list[Flaw]:
    """Break a statement in every way that it offers, each once, in a random order.

    A broken statement differs from the gold one as text. That its result differs too has to be looked at by running
    both: some tables give one answer to two questions.

    Example:
        >>> shape = TableShape(name="Orders", columns=["Order", "State"], values={"State": ["open", "paid"]})
        >>> found = break_sql("UPDATE `Orders` SET `State` = 'paid' WHERE `Order` = 'A7'", shape, random.Random(0))
        >>> sorted(flaw.name for flaw in found)[:3]
        ['missing WHERE', 'missing quote', 'misspelt keyword']

    """
    flaws = []
    for name in rng.sample(list(SQL_FLAWS), len(SQL_FLAWS)):
        found = SQL_FLAWS[name](tokenise(sql), table, rng)
        if found is not None and found[0].strip() != sql.strip():
            flaws.append(Flaw(name=name, broken=found[0], fixed=sql, reason=found[1], category=_category(name)))
    return flaws


Broken = tuple[str, str] | None
"""The broken statement, and what is to be said of it."""


def _wrong_column(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = _pick(rng, [i for i in range(len(tokens)) if column_at(tokens, i, table)])
    if at is None:
        return None
    column = column_at(tokens, at, table)
    others = [name for name in table.columns if name != column and name not in map(bare, tokens)]
    other = _pick(rng, others or [name for name in table.columns if name != column])
    if other is None:
        return None
    return put(tokens, at, like(tokens[at], other)), f"The column {tick(other)} does not fit; use {tick(column)}."


def _unknown_column(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = _pick(rng, [i for i in range(len(tokens)) if len(column_at(tokens, i, table)) > 2])
    if at is None:
        return None
    column = column_at(tokens, at, table)
    wrong = misspell(rng, column)
    if wrong.casefold() in (name.casefold() for name in table.columns):
        return None
    return put(tokens, at, like(tokens[at], wrong)), f"There is no column {tick(wrong)}; use {tick(column)}."


def _wrong_table(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = next((i for i in range(len(tokens)) if is_table(tokens, i, table)), None)
    if at is None:
        return None
    wrong = rng.choice([misspell(rng, table.name), f"{table.name}s", f"{table.name} List"])
    return put(tokens, at, like(tokens[at], wrong)), f"There is no table {tick(wrong)}; use {tick(table.name)}."


def _wrong_value(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = _pick(rng, [i for i, token in enumerate(tokens) if is_string(token) and len(token) > 2])
    if at is None:
        return None
    value = bare(tokens[at])
    own = [column for column, values in table.values.items() if value in values]
    others = sorted({each for column in own or table.values for each in table.values[column]} - {value, ""})
    other = _pick(rng, others)
    if other is None:
        return None
    return put(tokens, at, as_string(other)), f"The value {as_string(other)} is not the task's; use {tokens[at]}."


def _misspelt_value(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = _pick(rng, [i for i, token in enumerate(tokens) if is_string(token) and len(token) > 5])
    if at is None:
        return None
    wrong = as_string(misspell(rng, bare(tokens[at])))
    return put(tokens, at, wrong), f"The value {wrong} is misspelt; use {tokens[at]}."


def _swapped_values(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    if "VALUES" not in map(str.upper, tokens):
        return None
    start = [token.upper() for token in tokens].index("VALUES")
    places = [i for i in range(start, len(tokens)) if is_string(tokens[i])]
    pairs = [(a, b) for a, b in pairwise(places) if tokens[a] != tokens[b]]
    pair = _pick(rng, pairs)
    if pair is None:
        return None
    first, second = tokens[pair[0]], tokens[pair[1]]
    swapped = put(tokenise(put(tokens, pair[0], second)), pair[1], first)
    return swapped, f"The values {second} and {first} have changed places."


def _missing_quote(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = _pick(rng, [i for i, token in enumerate(tokens) if token[0] in "'`\"" and len(token) > 2])
    if at is None:
        return None
    cut = tokens[at][:-1] if rng.random() < 0.5 else tokens[at][1:]
    return put(tokens, at, cut), f"The quote of {tokens[at]} is not closed."


def _missing_where(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    words = [token.upper() for token in tokens]
    if "WHERE" not in words:
        return None
    start = words.index("WHERE")
    end = next((i for i in range(start, len(words)) if words[i] in ("ORDER", "GROUP", "LIMIT", "HAVING")), len(words))
    kept = "".join(tokens[:start]).rstrip() + (" " + "".join(tokens[end:]) if end < len(words) else "")
    return kept, "The WHERE is missing, so it is about every row."


def _missing_condition(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    words = [token.upper() for token in tokens]
    if "WHERE" not in words or "AND" not in words[words.index("WHERE") :]:
        return None
    cut = len(words) - 1 - words[::-1].index("AND")
    end = next((i for i in range(cut, len(words)) if words[i] in ("ORDER", "GROUP", "LIMIT", "HAVING")), len(words))
    lost = "".join(tokens[cut + 1 : end]).strip()
    kept = "".join(tokens[:cut]).rstrip() + (" " + "".join(tokens[end:]) if end < len(words) else "")
    return kept, f"The condition {lost} is missing."


def _wrong_operator(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    words = [token.upper() for token in tokens]
    start = words.index("WHERE") if "WHERE" in words else len(words)
    at = _pick(rng, [i for i in range(start, len(tokens)) if words[i] in _OPERATORS])
    if at is None:
        return None
    other = _OPERATORS[words[at]]
    return put(tokens, at, other), f"The operator {other} does not fit; use {tokens[at]}."


def _wrong_aggregate(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    called = [i for i, token in enumerate(tokens[:-1]) if token.upper() in _AGGREGATES and tokens[i + 1] == "("]
    at = _pick(rng, called)
    if at is None:
        return None
    starred = tokens[at + 2 : at + 3] == ["*"]
    if starred:
        other = rng.choice([tick(column) for column in table.columns])
        return "".join([*tokens[:at], other, *tokens[at + 4 :]]), f"It reads {other}; use COUNT(*)."
    other = rng.choice(_AGGREGATES[tokens[at].upper()])
    return put(tokens, at, other), f"The function {other} does not fit; use {tokens[at]}."


def _wrong_order(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = next((i for i, token in enumerate(tokens) if token.upper() in ("ASC", "DESC")), None)
    if at is None:
        return None
    other = "ASC" if tokens[at].upper() == "DESC" else "DESC"
    return put(tokens, at, other), f"The order {other} does not fit; use {tokens[at]}."


def _misspelt_keyword(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = _pick(rng, [i for i, token in enumerate(tokens) if token.upper() in _KEYWORDS])
    if at is None:
        return None
    wrong = misspell(rng, tokens[at])
    return put(tokens, at, wrong), f"There is no keyword {wrong}; use {tokens[at]}."


def _truncated(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    words = [i for i, token in enumerate(tokens) if not token.isspace()]
    if len(words) < 4:
        return None
    cut = words[rng.randrange(2, len(words) - 1)]
    return "".join(tokens[:cut]).rstrip(), "The statement ends too soon."


def _missing_bracket(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    at = _pick(rng, [i for i, token in enumerate(tokens) if token in "()"])
    return None if at is None else (put(tokens, at, ""), "A bracket is missing.")


def _reads_only(tokens: Tokens, table: TableShape, rng: random.Random) -> Broken:
    words = [token.upper() for token in tokens]
    if words[:1] not in (["UPDATE"], ["DELETE"]) or "WHERE" not in words:
        return None
    condition = "".join(tokens[words.index("WHERE") :])
    return f"SELECT * FROM {tick(table.name)} {condition}", "It only reads; the task asks for a change."


SQL_FLAWS: dict[str, Callable[[Tokens, TableShape, random.Random], Broken]] = {
    "wrong column": _wrong_column,
    "unknown column": _unknown_column,
    "wrong table": _wrong_table,
    "wrong value": _wrong_value,
    "misspelt value": _misspelt_value,
    "swapped values": _swapped_values,
    "missing quote": _missing_quote,
    "missing WHERE": _missing_where,
    "missing condition": _missing_condition,
    "wrong operator": _wrong_operator,
    "wrong aggregate": _wrong_aggregate,
    "wrong order": _wrong_order,
    "misspelt keyword": _misspelt_keyword,
    "truncated": _truncated,
    "missing bracket": _missing_bracket,
    "only reads": _reads_only,
}
"""Each way to break a statement, by its name. None where a statement does not offer it."""
_ERRORS = ("unknown column", "wrong table", "missing quote", "misspelt keyword", "truncated", "missing bracket")


def _category(name: str) -> Category:
    return "error" if name in _ERRORS else "wrong"


def _pick(rng: random.Random, choices: Sequence[T]) -> T | None:
    return rng.choice(choices) if choices else None
