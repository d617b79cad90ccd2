"""How far apart the agents' next-token distributions are (Multiagent Finetuning, appendices C.2 and C.3).

The paper does not spell the estimator out, and scores replies with another model (Gemma-2 2B), which gives no agent a
distribution of its own. So both are there: the agents' own distributions, and an external scorer's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import permutations

import torch

from cmat_graph.diversity.averaging import average
from cmat_graph.diversity.crossing import Crossed, Reading
from cmat_graph.diversity.forcing import BARE, Forcer, Row, token_kl
from cmat_graph.diversity.results import Measure


def measure_kl(crossed: Crossed) -> Measure:
    """Average KL(i || j) over the ordered pairs of agents; a pair `i|j` is on agent i's tokens."""
    return average(
        (reading.question, f"{reading.agent}|{other}", crossed.kl[model][number])
        for number, reading in enumerate(crossed.readings)
        for other, model in enumerate(crossed.models)
        if other != reading.agent
    )


def measure_kl_to_base(crossed: Crossed) -> Measure:
    """Average KL(i || base) over the agents."""
    return average(
        (reading.question, str(reading.agent), crossed.kl[BARE][number])
        for number, reading in enumerate(crossed.readings)
    )


def measure_external_kl(scorer: Forcer, readings: Sequence[Reading]) -> Measure:
    """Average, over ordered pairs of agents, the KL between a scorer's distributions along their two replies.

    Position t of one reply is compared with position t of the other, up to the end of the shorter one.

    Args:
        scorer: Any model; it needs no adapters.
        readings: The replies, each after the bare question.

    """
    return average(_compared(scorer, readings))


def _compared(scorer: Forcer, readings: Sequence[Reading]) -> Iterator[tuple[int, str, float]]:
    for group in _groups(readings, scorer.most):
        sizes = [len(reading.row.reply_ids) for reading in group]
        pairs = [(i, j) for i, j in permutations(range(len(group)), 2) if group[i].question == group[j].question]
        sums = dict.fromkeys(pairs, 0.0)
        # Of one question alone that is too long, some places at a time: all its distributions must fit side by side.
        window = max(sizes) if sum(sizes) <= scorer.most else max(1, scorer.most // len(group))
        for start in range(0, max(sizes), window):
            logits = _window(scorer, group, start, window)
            for i, j in pairs:
                shared = min(len(logits[i]), len(logits[j]))
                if shared:
                    sums[i, j] += float(token_kl(logits[i][:shared], logits[j][:shared]).sum())
        for i, j in pairs:
            name = f"{group[i].agent}|{group[j].agent}"
            yield group[i].question, name, sums[i, j] / min(sizes[i], sizes[j])


def _groups(readings: Sequence[Reading], most: int) -> Iterator[list[Reading]]:
    """Join whole questions as long as their replies' tokens are not too many."""
    questions: dict[int, list[Reading]] = defaultdict(list)
    for reading in readings:
        questions[reading.question].append(reading)
    group: list[Reading] = []
    size = 0
    for found in questions.values():
        tokens = sum(len(reading.row.reply_ids) for reading in found)
        if group and size + tokens > most:
            yield group
            group, size = [], 0
        group, size = [*group, *found], size + tokens
    if group:
        yield group


def _window(scorer: Forcer, group: Sequence[Reading], start: int, size: int) -> list[torch.Tensor]:
    """Return the scorer's logits for some places of each reply; none where a reply is over."""
    parts = {
        number: Row(
            prompt_ids=reading.row.prompt_ids + reading.row.reply_ids[:start],
            reply_ids=reading.row.reply_ids[start : start + size],
        )
        for number, reading in enumerate(group)
        if start < len(reading.row.reply_ids)
    }
    numbers = list(parts)
    found: list[torch.Tensor] = [torch.empty(0)] * len(group)
    for batch in scorer.batches(list(parts.values())):
        logits = scorer.logits(BARE, batch)
        for row in set(batch.rows.tolist()):  # one piece a row: a window is never longer than a piece
            found[numbers[row]] = logits[batch.rows == row]
    return found
