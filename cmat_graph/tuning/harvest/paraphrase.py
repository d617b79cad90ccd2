"""A task in other words: by a model that the user names, or by rules that change its opening and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Paraphraser = Callable[[str], str]
"""Words a task anew."""

_RULES: tuple[tuple[re.Pattern[str], tuple[str, ...]], ...] = (
    (re.compile(r"^What (?:is|are|was|were) (?=the\b)"), ("Tell me ", "Find out ", "I want to know ", "Look up ")),
    (re.compile(r"^(?:What|Which)(?= )"), ("Tell me which", "Find out which", "I want to know which")),
    (re.compile(r"^How many(?= )"), ("Tell me how many", "Count how many", "I want to know how many")),
    (re.compile(r"^How much(?= )"), ("Tell me how much", "Find out how much")),
    (re.compile(r"^Who(?= )"), ("Tell me who", "Find out who", "I want to know who")),
    (re.compile(r"^When(?= )"), ("Tell me when", "Find out when")),
    (re.compile(r"^Where(?= )"), ("Tell me where", "Find out where")),
    (
        re.compile(r"^(Add|Change|Correct|Delete|Enter|Find|Insert|List|Mark|Put|Remove|Send|Set|Take|Update)(?= )"),
        ("Please {}", "I want you to {}", "Your job is to {}"),
    ),
)
_LEADS = ("Here is the task: {}", "Please do this: {}", "This is what I need: {}", "Task: {}")
_KEPT = re.compile(r"'[^'\n]+'|\"[^\"\n]+\"|`[^`\n]+`|\d+(?:[.,]\d+)*|\b\w*[A-Z]\w*[A-Z]\w*\b")


def by_rules(text: str, *, number: int) -> str:
    """Word a task anew; different numbers give different words, as far as there are rules.

    Example:
        >>> by_rules("How many rooms are free?", number=0)
        'Tell me how many rooms are free?'

    """
    ways: list[str] = []
    for pattern, openings in _RULES:
        if found := pattern.search(text):
            rest = text[found.end() :]
            ways = [opening.format(found[0].lower()) + rest for opening in openings]
            break
    ways += [lead.format(text) for lead in _LEADS]
    return ways[number % len(ways)]


def keeps_names(text: str, worded: str, names: Sequence[str] = ()) -> bool:
    """Tell whether another wording still says every number, quoted value and name."""
    return all(each in worded for each in [*_KEPT.findall(text), *names])


def replace_task(content: str, text: str, worded: str) -> str:
    """Put the new wording in the place of the old, also where a transcript has indented its lines."""
    for old, new in ((text, worded), (text.replace("\n", "\n  "), worded.replace("\n", "\n  "))):
        if old and old in content:
            return content.replace(old, new, 1)
    return content
