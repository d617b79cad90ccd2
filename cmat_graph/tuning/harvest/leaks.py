"""Nothing of an evaluation may be trained on: neither its tasks, nor their text inside others, nor a quoted answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cmat_graph.errors import LeakError
from cmat_graph.splits import TRAINED_ON
from cmat_graph.tuning.dataset import hash_task
from cmat_graph.types import Episode, Task

_OPENING = 8
"""Words by which a held-out task's text is looked for inside other texts."""
_TELLING = 4
"""Shorter answers (`2`, `yes`) stand in texts by chance."""
_COMMON = frozenset(("done", "true", "false", "none", "null", "unknown"))
_LESSONS = "Lessons from earlier attempts:\n"


def check_split(split: str | None) -> None:
    """Refuse to make a dataset of an evaluation's split.

    Raises:
        LeakError: It is one.

    """
    if split is not None and split not in TRAINED_ON:
        raise LeakError(
            f"split {split!r} is for evaluation, and nothing may be trained on it; take --split train, or 'all' for "
            "every split that is not for evaluation"
        )


class Guard:
    """Knows the tasks that are held out.

    Args:
        held_out: Tasks that the result is measured on.

    """

    def __init__(self, held_out: Collection[Task] = ()) -> None:
        self._ids = {task.id for task in held_out}
        self._hashes = {hash_task(task.prompt) for task in held_out}
        self._texts: dict[tuple[str, ...], list[str]] = {}
        for task in held_out:
            words = task.prompt.lower().split()
            if len(words) >= _OPENING:  # a shorter one stands in other texts by chance
                self._texts.setdefault(tuple(words[:_OPENING]), []).append(" ".join(words))

    def refuses(self, episode: Episode) -> str:
        """Say why nothing of an episode may be taken; empty when it may."""
        if episode.task.split not in TRAINED_ON:
            return "split for evaluation"
        if episode.task.id in self._ids or hash_task(episode.task.prompt) in self._hashes:
            return "held-out task"
        return ""

    def finds(self, texts: Iterable[str], *, whole: str = "") -> bool:
        """Tell whether texts hold a held-out task's text, whatever their spaces and capitals.

        Args:
            texts: Where to look for it; one of a few words is not looked for, since it stands there by chance.
            whole: What must not be one, however short.

        """
        if whole and hash_task(whole) in self._hashes:
            return True
        if not self._texts:
            return False
        for text in texts:
            words = text.lower().split()
            for at in range(len(words) - _OPENING + 1):
                begun = self._texts.get(tuple(words[at : at + _OPENING]), ())
                if any(each == " ".join(words[at : at + len(each.split())]) for each in begun):
                    return True
        return False


def quotes_answer(messages: Sequence[Mapping[str, Any]], episode: Episode) -> bool:
    """Tell whether a lesson in a prompt says the answer: copying it is nothing to learn."""
    lessons = " ".join(
        message["content"].partition(_LESSONS)[2] for message in messages if _LESSONS in message["content"]
    )
    if not lessons or not episode.answer:
        return False
    return any(
        value.lower() in lessons.lower()  # a search for a long answer is slow to build
        and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", lessons, re.IGNORECASE)
        and value.lower() not in episode.task.prompt.lower()
        for value in _values(episode.answer)
    )


def _values(answer: str) -> list[str]:
    try:
        read = json.loads(answer)
    except (ValueError, RecursionError):
        read = answer
    found = [str(each).strip() for each in (read if isinstance(read, list) else [read])]
    return [value for value in found if len(value) >= _TELLING and value.lower() not in _COMMON]
