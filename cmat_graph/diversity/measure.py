"""All metrics of one run of debates at once."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from langchain_core.embeddings import Embeddings

from cmat_graph.adapters import AdapterCard
from cmat_graph.diversity.consensus import measure_consensus
from cmat_graph.diversity.replies import read_sample
from cmat_graph.diversity.results import Diversity
from cmat_graph.errors import ConfigurationError, MissingExtraError
from cmat_graph.memory.embeddings import load_embeddings
from cmat_graph.traces.base import TraceStore

Cards = Sequence[AdapterCard | None]
BASE = "base"
"""As an embedder, the base itself; in `models`, an agent without an adapter."""


def measure_diversity(
    traces: TraceStore,
    *,
    run: str | None = None,
    base: str = "nano",
    generators: Cards = (),
    critics: Cards | None = (),
    limit: int | None = 100,
    seed: int = 0,
    embedder: str | Embeddings = BASE,
    scorer: str = "",
    kind: str = "",
    dtype: str | None = "float32",
    device: str | None = None,
) -> Diversity:
    """Measure how different a society's agents are, on a recorded run of their debates.

    Consensus is of all questions; for the other figures the models read the replies to `limit` questions again, in
    batches, on one base in memory whose adapters are switched. The same seed draws the same questions in every
    iteration.

    Args:
        traces: Where the debates are recorded.
        run: Label of the run; None takes every recorded debate.
        base: The agents' base: `nano`, a model folder, or a hub id.
        generators: The adapter of each agent in round 1, None for the bare base; empty: all are bare.
        critics: The adapter of each agent in later rounds, in the same way; None where the generators spoke again.
        limit: Questions that are read again; None reads all.
        seed: Draws them.
        embedder: `base` for its own hidden states; or a name such as `hashing` or `minilm:FOLDER`, or embeddings.
        scorer: Another model, for the KL by an external scorer; empty leaves that out.
        kind: How answers are compared; empty takes what was recorded.
        dtype: In which the models compute; float32 makes the figures exact, None takes what is fastest.
        device: A torch device; None takes a GPU if there is one.

    Raises:
        ConfigurationError: There are no debates, or not one adapter for each agent.
        AdapterMismatchError: An adapter is of another base.
        UnsupportedAdapterError: An adapter is no LoRA.
        AdapterNotFoundError: An adapter's files are not there.
        ModelNotFoundError: There is no such base or scorer.
        MissingExtraError: The extra `local` is not installed.

    Example:
        >>> from cmat_graph.traces.sql import SQLTraceStore
        >>> measure_diversity(SQLTraceStore("sqlite://"), run="iteration-0")
        Traceback (most recent call last):
        ...
        cmat_graph.errors.ConfigurationError: no debates that ended in run 'iteration-0'; ...

    """
    sample = read_sample(traces, run, limit=limit, seed=seed, kind=kind)
    seats = _seats(sample.agents, generators, critics)
    vectors = load_embeddings(embedder) if isinstance(embedder, str) and embedder != BASE else embedder
    try:
        forced = import_module("cmat_graph.diversity.forced")  # torch, transformers and peft live there
    except ImportError as exc:
        raise MissingExtraError.of("local", exc) from exc
    figures = forced.measure_forced(
        sample,
        seats,
        base=base,
        embeddings=None if isinstance(vectors, str) else vectors,
        scorer=scorer,
        dtype=dtype,
        device=device,
    )
    return Diversity(
        run=run,
        base=base,
        agents=sample.agents,
        models={node: card.key if card else BASE for node, card in seats.items()},
        questions=len(sample.agreements),
        sampled=len(sample.asked),
        seed=seed,
        consensus=measure_consensus(sample),
        scorer=scorer,
        **figures,
    )


def _seats(agents: int, generators: Cards, critics: Cards | None) -> dict[str, AdapterCard | None]:
    """Return who sits where."""
    seats: dict[str, AdapterCard | None] = {}
    for role, cards in (("generator", generators), ("critic", generators if critics is None else critics)):
        if cards and len(cards) != agents:
            raise ConfigurationError(
                f"{len(cards)} {role}s for debates of {agents} agents; give one adapter for each, None for a bare base"
            )
        seats |= {f"{role}-{agent}": cards[agent] if cards else None for agent in range(agents)}
    return seats
