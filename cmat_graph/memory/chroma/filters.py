"""LangGraph's filters on an item's value, and conditions on namespaces."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from langgraph.store.base import InvalidNamespaceError, MatchCondition, SearchOp

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
MAX_MINUTES = 1_000_000_000
"""Longest time to live, some 1,900 years."""
OPERATORS = ("$eq", "$ne", *_ORDER)


def check_search(op: SearchOp) -> None:
    """Refuse a limit, an offset or a filter that means nothing."""
    for name, number in (("limit", op.limit), ("offset", op.offset)):
        if not isinstance(number, int) or not 0 <= number < 2**31:
            raise ValueError(f"{name} must be a whole number from 0 to two thousand million, not {number!r}")
    check_namespace(op.namespace_prefix)
    if op.filter is not None and not isinstance(op.filter, Mapping):
        raise ValueError(f"a filter is a dict of fields and what they must be, not {op.filter!r}")
    check_filter(op.filter)


def check_namespace(namespace: Any, *, whole: bool = False) -> None:
    """Refuse labels that LangGraph refuses; a `whole` namespace, to be written to, also where it is empty or reserved.

    LangGraph looks at what `put` and `search` are given, not at the operations of a batch.
    """
    labels = tuple(namespace)
    if wrong := [label for label in labels if not isinstance(label, str) or not label or "." in label]:
        raise InvalidNamespaceError(f"a namespace is made of texts without periods, not of {wrong[0]!r}: {labels!r}")
    if whole and (not labels or labels[0] == "langgraph"):
        raise InvalidNamespaceError(f"nothing can be put into the namespace {labels!r}; begin it with a name of yours")


def check_ttl(ttl: Any) -> None:
    """Refuse a time to live that is no number of minutes."""
    if ttl is not None and (isinstance(ttl, bool) or not isinstance(ttl, int | float) or not 0 < ttl < MAX_MINUTES):
        raise ValueError(f"ttl must be minutes above 0 and below {MAX_MINUTES:,}, or None for no end, not {ttl!r}")


def check_filter(wanted: Any) -> None:
    """Refuse operators that there are not, also where no item would meet them.

    Raises:
        ValueError: An unknown operator; the message names the known ones.

    """
    if isinstance(wanted, Mapping):
        for name, inner in wanted.items():
            if not isinstance(name, str):
                raise ValueError(f"a filter names fields of the value by text, not {name!r}")
            if name.startswith("$") and name not in OPERATORS:
                raise ValueError(f"unknown filter operator {name}; known: {', '.join(OPERATORS)}")
            check_filter(inner)
    elif isinstance(wanted, (list, tuple)):
        for inner in wanted:
            check_filter(inner)


def matches(value: Mapping[str, Any], wanted: Mapping[str, Any] | None) -> bool:
    """Tell whether a value meets every condition."""
    return all(_holds(value.get(field), condition) for field, condition in (wanted or {}).items())


def fits(namespace: tuple[str, ...], condition: MatchCondition) -> bool:
    """Tell whether a namespace begins or ends as wanted; `*` stands for any one label."""
    path = tuple(condition.path)
    if len(path) > len(namespace):
        return False
    part = namespace[: len(path)] if condition.match_type == "prefix" else namespace[len(namespace) - len(path) :]
    return all(wanted in ("*", actual) for wanted, actual in zip(path, part, strict=True))


def _holds(actual: Any, wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        if any(name.startswith("$") for name in wanted):
            return all(_compare(name, actual, right) for name, right in wanted.items())
        return isinstance(actual, Mapping) and all(_holds(actual.get(name), each) for name, each in wanted.items())
    if isinstance(wanted, (list, tuple)):
        alike = isinstance(actual, (list, tuple)) and len(actual) == len(wanted)
        return alike and all(_holds(a, w) for a, w in zip(actual, wanted, strict=True))
    return bool(actual == wanted)


def _compare(name: str, left: Any, right: Any) -> bool:
    if name == "$eq":
        return bool(left == right)
    if name == "$ne":
        return bool(left != right)
    if name not in _ORDER:  # a plain field beside an operator
        return isinstance(left, Mapping) and _holds(left.get(name), right)
    try:
        return _ORDER[name](float(left), float(right))  # as LangGraph's own stores do
    except (TypeError, ValueError):  # no numbers: texts, such as dates, in their order; unlike types never match
        return isinstance(left, str) and isinstance(right, str) and _ORDER[name](left, right)
