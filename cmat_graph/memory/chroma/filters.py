"""LangGraph's filters on an item's value, and conditions on namespaces."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from langgraph.store.base import MatchCondition

_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "$gt": operator.gt,
    "$gte": operator.ge,
    "$lt": operator.lt,
    "$lte": operator.le,
}
OPERATORS = ("$eq", "$ne", *_ORDER)


def check_filter(wanted: Any) -> None:
    """Refuse operators that there are not, also where no item would meet them.

    Raises:
        ValueError: An unknown operator; the message names the known ones.

    """
    if isinstance(wanted, Mapping):
        for name, inner in wanted.items():
            if name.startswith("$") and name not in OPERATORS:
                raise ValueError(f"unknown filter operator {name}; known: {', '.join(OPERATORS)}")
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
