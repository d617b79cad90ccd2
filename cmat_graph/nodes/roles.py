"""Role flips: the assistant speaks for the User or the Checker, as small models do when they write on alone."""

from __future__ import annotations

import re

from cmat_graph.types import Message

_OTHER = re.compile(
    r"^[ \t*_#>]{0,9}(User|USER|Human|HUMAN|Checker|CHECKER|System|SYSTEM)[*_]{0,2}[ \t]?:", re.MULTILINE
)
_JUDGES = re.compile(r'\s*(?:```\w*\s*)?\{[^{}]*"verdict"\s*:')
_QUOTED = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
"""Blocks of code: a file with a `User:` in it is no dialogue."""


def other_role(draft: Message) -> str:
    """Say in whose name the assistant spoke, if not in its own."""
    if found := _OTHER.search(_QUOTED.sub("", draft["content"])):
        return f"The reply speaks for the {found.group(1).capitalize()}."
    return "The reply judges in place of the Checker." if _JUDGES.match(draft["content"]) else ""
