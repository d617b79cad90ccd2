"""Preferences: of two replies to one prompt the better one, and judged replies by themselves."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from cmat_graph.tuning.harvest.messages import shown
from cmat_graph.tuning.harvest.spool import Deed, Spool
from cmat_graph.tuning.harvest.tally import Tally
from cmat_graph.tuning.sources import HarvestSettings


class Preference(NamedTuple):
    """Which of two deeds at one state is better, by their numbers."""

    chosen: int
    rejected: int


class Choice(NamedTuple):
    """What is kept of the deeds."""

    pairs: list[Preference]
    judged: list[int]


def prefer(deeds: Sequence[Deed], settings: HarvestSettings, tally: Tally) -> Choice:
    """Find better and worse replies to the same prompt, also across the episodes of a task.

    A reply that was sent back or failed is also compared with the one that did better right after it: nothing of the
    environment had changed in between. A reply that was good once and bad another time proves nothing.
    """
    states: dict[bytes, list[int]] = defaultdict(list)
    for number, deed in enumerate(deeds):
        states[deed.state].append(number)
    enough = settings.max_per_task or len(deeds)
    of_task: tuple[Counter[int], Counter[int]] = (Counter(), Counter())
    pairs: list[Preference] = []
    judged: list[int] = []
    for numbers in states.values():
        good = _by_action(deeds, numbers, good=True)
        bad = _by_action(deeds, numbers, good=False)
        both = good.keys() & bad.keys()
        if both:
            tally.left("filter", "pairs", "contradictory", len(both))
        for number in (*good.values(), *bad.values()):
            if deeds[number].action not in both:
                judged += _within(number, deeds[number].task, of_task[0], enough, tally, "judged")
        for rejected in bad.values():
            if deeds[rejected].action in both:
                continue
            better = [number for action, number in good.items() if action not in both][: max(1, enough)]
            mended = deeds[rejected].mended
            if mended >= 0 and deeds[mended].action not in bad and deeds[mended].action not in good:
                better.append(mended)
            for chosen in better:
                pairs += _within(Preference(chosen, rejected), deeds[rejected].task, of_task[1], enough, tally, "pairs")
    return Choice(sorted(pairs, key=lambda pair: (pair.rejected, pair.chosen)), sorted(judged))


def pair_row(preference: Preference, deeds: Sequence[Deed], spool: Spool) -> dict[str, Any]:
    """Read a pair: the prompt is that of the worse reply."""
    worse, better = deeds[preference.rejected], deeds[preference.chosen]
    row, other = spool.get(worse.place), spool.get(better.place)
    origin = row["origin"]
    episodes = list(dict.fromkeys([*origin["episodes"], *other["origin"]["episodes"]]))
    return {
        "prompt": [shown(message) for message in row["messages"][: worse.at]],
        "chosen": _bare(other["messages"][better.at]),
        "rejected": _bare(row["messages"][worse.at]),
        "tools": row["tools"],
        "contrast": worse.contrast,
        "origin": {**origin, "episodes": episodes},
    }


def judged_row(number: int, deeds: Sequence[Deed], spool: Spool) -> dict[str, Any]:
    """Read a judged reply."""
    deed = deeds[number]
    row = spool.get(deed.place)
    return {
        "prompt": [shown(message) for message in row["messages"][: deed.at]],
        "completion": _bare(row["messages"][deed.at]),
        "good": deed.good,
        "tools": row["tools"],
        "origin": row["origin"],
    }


def _bare(message: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "weight"}


def _by_action(deeds: Sequence[Deed], numbers: Sequence[int], *, good: bool) -> dict[bytes, int]:
    """Return the first deed of each different action."""
    found: dict[bytes, int] = {}
    for number in numbers:
        if deeds[number].good is good:
            found.setdefault(deeds[number].action, number)
    return found


def _within(item: Any, task: int, count: Counter[int], enough: int, tally: Tally, what: str) -> Iterator[Any]:
    if count[task] < enough:
        count[task] += 1
        yield item
    else:
        tally.left("distil", what, "the task has enough")
