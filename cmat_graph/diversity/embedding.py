"""How unlike the right replies are (Multiagent Finetuning, appendix C.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
from langchain_core.embeddings import Embeddings

from cmat_graph.diversity.averaging import average
from cmat_graph.diversity.forcing import Forcer
from cmat_graph.diversity.replies import Asked
from cmat_graph.diversity.results import Measure


def measure_dissimilarity(asked: Sequence[Asked], embedder: Forcer | Embeddings) -> Measure:
    """Average 1 - cos over the pairs of agents whose last replies give the consensus.

    Args:
        asked: The debates; one with fewer than two such replies says nothing.
        embedder: A model, whose last hidden states are averaged over a reply's tokens (T5, which the paper names, has
            no CLS token either), or any embeddings.

    """
    return average(_pairs(asked, embedder))


def _pairs(asked: Sequence[Asked], embedder: Forcer | Embeddings) -> Iterator[tuple[int, str, float]]:
    texts = [
        (question, agent, debate.last[agent].message["content"])
        for question, debate in enumerate(asked)
        if len(debate.winners) > 1
        for agent in debate.winners
    ]
    if not texts:
        return
    told = [text for _, _, text in texts]
    vectors = pool(embedder, told) if isinstance(embedder, Forcer) else torch.tensor(embedder.embed_documents(told))
    vectors = torch.nn.functional.normalize(vectors.double(), dim=-1)
    places: dict[int, list[int]] = {}
    for place, (question, _, _) in enumerate(texts):
        places.setdefault(question, []).append(place)
    for question, found in places.items():
        for i, j in combinations(found, 2):
            yield question, f"{texts[i][1]}|{texts[j][1]}", 1.0 - float(vectors[i] @ vectors[j])


def pool(forcer: Forcer, texts: Sequence[str]) -> torch.Tensor:
    """Embed texts by the mean of the bare base's last hidden states over their tokens, N x H."""
    rows = [forcer.encode_text(text) for text in texts]
    vectors: dict[int, torch.Tensor] = {}
    for batch in forcer.batches(rows, scored=False):
        mask = batch.mask.unsqueeze(-1)
        means = (forcer.states(batch) * mask).sum(1) / mask.sum(1)
        vectors.update(zip(batch.lines.tolist(), means.cpu(), strict=True))
    return torch.stack([vectors[number] for number in range(len(rows))])
