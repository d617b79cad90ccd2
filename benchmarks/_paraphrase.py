"""Say a task in other words, by rules: synonyms, another order, fillers, other quotes, another line about the table.

The rules are for English requests about one table. They keep what a task is about: its names, numbers and values.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

Rng = random.Random
Rule = Callable[[Rng, str], str]

SYNONYMS: dict[str, tuple[str, ...]] = {
    "set": ("change", "put", "switch"),
    "change": ("alter", "switch", "edit"),
    "update": ("modify", "edit", "correct"),
    "modify": ("edit", "adjust", "change"),
    "replace": ("swap", "exchange"),
    "insert": ("add", "enter", "put"),
    "add": ("enter", "include", "append"),
    "record": ("note down", "enter", "register"),
    "count": ("add up", "number", "tally"),
    "find": ("look up", "get", "search for"),
    "name": ("list", "give", "state"),
    "tell me": ("I want to know", "give me", "let me know"),
    "show me": ("display", "let me see"),
    "what is": ("give me", "I need", "look up"),
    "what are": ("list", "I need", "show"),
    "what was": ("give me", "look up"),
    "how many": ("what number of", "the count of"),
    "how much": ("what amount", "what sum"),
    "who": ("which person", "what person"),
    "which": ("what", "whichever"),
    "where do": ("in which place do",),
    "where is": ("in which place is",),
    "where": ("when", "for which"),
    "with": ("that has", "having"),
    "has": ("shows", "carries", "got"),
    "have": ("show", "carry"),
    "the row": ("the line", "that entry"),
    "row": ("entry", "line", "record"),
    "rows": ("entries", "lines", "records"),
    "values": ("details", "data", "contents"),
    "value": ("entry", "content"),
    "column": ("field", "attribute"),
    "total": ("overall", "summed"),
    "number": ("count", "quantity"),
    "average": ("mean",),
    "highest": ("largest", "biggest", "maximum"),
    "most": ("largest", "top"),
    "lowest": ("smallest", "minimum", "least"),
    "more than": ("above", "over"),
    "less than": ("below", "under"),
    "new": ("fresh", "further"),
    "following": ("these", "listed"),
    "send": ("dispatch", "ship"),
    "take": ("get", "remove"),
    "put": ("place", "move"),
    "check in": ("book in", "take back"),
    "brought back": ("returned", "gave back"),
    "money": ("payment", "cash"),
    "books": ("volumes", "titles"),
    "needs": ("must go to", "wants"),
    "left": ("went from", "departed"),
    "come": ("amount", "add up"),
    "do": ("can", "shall"),
    "does": ("did", "will"),
}
OPENINGS = (
    "Please: ",
    "Hi, a quick one. ",
    "Could you see to this? ",
    "I need help here: ",
    "Next task: ",
    "For today: ",
)
CLOSINGS = (" Thanks.", " It is urgent.", " As soon as you can.", " That is all.", " Much obliged.")
_WORDS = re.compile(
    r"'[^'\n]*'|\"[^\"\n]*\"|`[^`\n]*`|" + "|".join(rf"\b{each}\b" for each in sorted(SYNONYMS, key=len, reverse=True)),
    re.IGNORECASE,
)
_TABLE = re.compile(r"\n?The name of this table is (.*), and the headers of this table are (.*)\.\s*$", re.DOTALL)
_CLAUSE = re.compile(r"^(.{6,}?),? (where|when|for|if|in) (.{3,}?)([.?]?)$", re.DOTALL)


def paraphrase(task: str, rng: Rng) -> str:
    """Say a task in other words: its table is told in another way, and of the other rules at least three apply.

    Args:
        task: The prompt, with or without the line that names its table.
        rng: Which rules apply, and how.

    """
    words, table = _split(task)
    rules: list[Rule] = [_reword, _turn, _requote, _drop, _fill]
    chosen = {_reword, *rng.sample(rules, rng.randint(3, len(rules)))}
    for rule in rules:  # in this order: the later ones take apart what the earlier ones look for
        if rule in chosen:
            words = rule(rng, words)
    return f"{words}{_tell(rng, *table)}" if table else words


def _split(task: str) -> tuple[str, tuple[str, str] | None]:
    found = _TABLE.search(task)
    return (task[: found.start()], (found[1], found[2])) if found else (task, None)


def _tell(rng: Rng, name: str, headers: str) -> str:
    columns = [header.strip() for header in headers.split(",")]
    some = ", ".join(rng.sample(columns, len(columns)))
    return rng.choice(
        (
            f" (Table: {name}; it has {some}.)",
            f"\nUse {name}. Its columns: {some}.",
            f"\nEverything is kept in {name}, by {some}.",
            f" This is about {name}.",
            "",
        )
    )


def _reword(rng: Rng, words: str) -> str:
    """Exchange words outside of quotes and names; eight of ten that can be."""

    def other(found: re.Match[str]) -> str:
        choices = SYNONYMS.get(found[0].lower())
        is_name = found.start() > 0 and found[0][0].isupper()
        if choices is None or is_name or rng.random() < 0.2:
            return found[0]
        chosen = rng.choice(choices)
        return chosen.capitalize() if found[0][0].isupper() else chosen

    return _WORDS.sub(other, words)


def _turn(rng: Rng, words: str) -> str:
    """Put the last clause first: `Where the Order is A1, set the State to paid.`."""
    found = _CLAUSE.match(words)
    if found is None or found[1].count("'") % 2:
        return words
    return f"{found[2].capitalize()} {found[3]}: {found[1][0].lower()}{found[1][1:]}{found[4]}"


def _requote(rng: Rng, words: str) -> str:
    mark = rng.choice(('"', "", "", "`"))
    return re.sub(r"(?<!\w)['`\"]([^'`\"\n]+)['`\"](?!\w)", rf"{mark}\1{mark}", words)


def _fill(rng: Rng, words: str) -> str:
    return rng.choice(OPENINGS) + words + rng.choice(("", *CLOSINGS))


def _drop(rng: Rng, words: str) -> str:
    """Leave out articles and small words, as people who are in a hurry do."""
    return re.sub(r"\b(?:the|a|an|please|that)\s+", "", words, flags=re.IGNORECASE)
