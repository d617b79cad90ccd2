"""The figures for which the models read the recorded replies again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.embeddings import Embeddings

from cmat_graph.adapters import AdapterCard
from cmat_graph.diversity.crossing import Reading, cross
from cmat_graph.diversity.divergence import measure_external_kl, measure_kl, measure_kl_to_base
from cmat_graph.diversity.embedding import measure_dissimilarity
from cmat_graph.diversity.forcing import BARE, Forcer
from cmat_graph.diversity.likelihood import measure_nll
from cmat_graph.diversity.replies import Sample
from cmat_graph.diversity.results import Measure
from cmat_graph.memory.embeddings import embedding_id
from cmat_graph.tuning.debates.transcript import Reply
from cmat_graph.types import Message

POOLED = "mean of the bare base's last hidden states over the reply's tokens: {}"


def measure_forced(
    sample: Sample,
    seats: Mapping[str, AdapterCard | None],
    *,
    base: str,
    embeddings: Embeddings | None,
    scorer: str,
    dtype: str | None,
    device: str | None,
) -> dict[str, Any]:
    """Measure likelihood, divergence and dissimilarity; agents with the same adapter are one model.

    Args:
        sample: The debates.
        seats: Each seat's adapter; None for the bare base.
        base: What the adapters are of.
        embeddings: Embed the replies; None takes the base's own hidden states.
        scorer: Another model; empty for none.
        dtype: In which the models compute.
        device: Where.

    Returns:
        Fields of `Diversity`.

    """
    names: dict[str, str] = {}  # PEFT's names of adapters must not hold a dot
    for card in seats.values():
        if card is not None:
            names.setdefault(card.key, f"adapter-{len(names)}")
    forcer = Forcer(
        base, {names[card.key]: card for card in seats.values() if card is not None}, dtype=dtype, device=device
    )

    def models(role: str) -> list[str]:
        cards = [seats[f"{role}-{agent}"] for agent in range(sample.agents)]
        return [BARE if card is None else names[card.key] for card in cards]

    first, too_long = _read(forcer, (asked.first.values() for asked in sample.asked))
    generated = cross(forcer, first, models("generator"))
    later = [[reply for reply in asked.last.values() if reply.round > 1] for asked in sample.asked]
    debated = any(later)
    said = generated
    if debated:
        last, more = _read(forcer, later)
        said = cross(forcer, last, models("critic"))
        too_long += more
    nothing = Measure(value=None)
    return {
        "too_long": too_long,
        "nll": measure_nll(said),
        "embedding": measure_dissimilarity(sample.asked, embeddings or forcer),
        "embedder": POOLED.format(base) if embeddings is None else embedding_id(embeddings),
        "kl_generators": measure_kl(generated),
        "kl_critics": measure_kl(said) if debated else nothing,
        "kl_base_generators": measure_kl_to_base(generated),
        "kl_base_critics": measure_kl_to_base(said) if debated else nothing,
        "kl_external": _external(sample, scorer, dtype, device) if scorer else None,
    }


def _read(forcer: Forcer, replies: Iterable[Iterable[Reply]]) -> tuple[list[Reading], int]:
    """Encode replies in their chats; count those that are too long."""
    readings, too_long = [], 0
    for question, found in enumerate(replies):
        for reply in found:
            row = forcer.encode(reply.prompt, reply.message)
            too_long += row is None
            if row is not None:
                readings.append(Reading(question=question, agent=reply.agent, row=row))
    return readings, too_long


def _external(sample: Sample, scorer: str, dtype: str | None, device: str | None) -> Measure:
    judge = Forcer(scorer, {}, dtype=dtype, device=device)
    readings = []
    for question, asked in enumerate(sample.asked):
        prompt: list[Message] = [{"role": "user", "content": asked.question}]
        for agent, reply in asked.last.items():
            if row := judge.encode(prompt, reply.message):
                readings.append(Reading(question=question, agent=agent, row=row))
    return measure_external_kl(judge, readings)
