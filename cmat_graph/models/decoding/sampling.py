"""How one token after another is drawn: for all rows of a batch at once, each by its own settings and seed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch

from cmat_graph.errors import ConfigurationError


class Constraint(Protocol):
    """What may follow, token by token: one object for each request, used by the worker thread only."""

    def mask(self) -> torch.Tensor:
        """Return which tokens may come next: bool, as long as the vocabulary."""

    def advance(self, token: int) -> None:
        """Note the token that was drawn."""


class Sampling(NamedTuple):
    """How one reply is drawn."""

    max_tokens: int = 256
    temperature: float = 0.0
    """0 always takes the most likely token."""
    top_p: float = 1.0
    """Only the most likely tokens that together have this probability."""
    top_k: int = 0
    """Only this many of the most likely tokens; 0 for all."""
    min_p: float = 0.0
    """Only tokens at least this likely, as a share of the most likely one's probability."""
    repetition_penalty: float = 1.0
    """Above 1, tokens that were in the prompt or the reply become less likely (Keskar et al. 2019)."""
    seed: int | None = None
    """The same seed repeats a reply, whoever else is in the batch. In float32, that is: in half precision the batch's
    rounding is large enough to change a token now and then."""
    stop: tuple[str, ...] = ()
    """The reply ends before the first of these."""
    constraint: Constraint | None = None
    ends_loops: bool = True
    """A reply ends where its last 96 tokens only repeat a piece of at most a third of them."""


def checked(sampling: Sampling) -> Sampling:
    """Return settings that can be drawn by.

    Raises:
        ConfigurationError: They cannot.

    """
    numbers = (sampling.temperature, sampling.top_p, sampling.min_p, sampling.repetition_penalty)
    if not all(isinstance(number, int | float) and 0 <= number < 1e6 for number in numbers):
        raise ConfigurationError(
            f"temperature, top_p, min_p and repetition_penalty are numbers from 0 on, not {numbers}; correct them"
        )
    if sampling.repetition_penalty == 0 or not all(isinstance(mark, str) for mark in sampling.stop):
        raise ConfigurationError("repetition_penalty is above 0, and stop holds strings; correct them")
    if not isinstance(sampling.top_k, int) or not isinstance(sampling.max_tokens, int):
        raise ConfigurationError("top_k and max_tokens are whole numbers; correct them")
    return sampling._replace(
        top_k=min(max(sampling.top_k, 0), 1 << 30),
        temperature=sampling.temperature if sampling.temperature > 1e-4 else 0,
    )


class Drawer(Protocol):
    """What drawing needs of a row."""

    sampling: Sampling

    @property
    def context(self) -> list[int]:
        """Prompt and reply so far."""

    def roll(self) -> float:
        """Return the row's next random number in [0, 1)."""

    def fail(self, error: Exception) -> None:
        """End without a reply."""


def draw(logits: torch.Tensor, rows: Sequence[Drawer]) -> tuple[list[int], list[float]]:
    """Draw a token for each row.

    Args:
        logits: [rows, vocabulary].
        rows: Their settings.

    Returns:
        The tokens, and the natural logarithm of each one's probability, at temperature 1, among those that the row's
        constraint allows; NaN for a row whose logits are not finite numbers.

    """
    logits = logits.float()
    for i, row in enumerate(rows):
        if row.sampling.constraint is not None:
            _constrain(logits[i], row, row.sampling.constraint)
    total = logits.logsumexp(-1)
    scores = logits
    for i, row in enumerate(rows):
        if row.sampling.repetition_penalty != 1.0:
            scores = scores.clone() if scores is logits else scores
            _penalise(scores[i], row)
    tokens = scores.argmax(-1)
    drawn = [i for i, row in enumerate(rows) if row.sampling.temperature > 0]
    if drawn:
        index = torch.tensor(drawn, device=logits.device)
        tokens[index] = _sample(scores[index], [rows[i] for i in drawn])
    chosen = logits.gather(1, tokens[:, None])[:, 0] - total
    numbers = tokens.tolist()
    for row, token in zip(rows, numbers, strict=True):
        if row.sampling.constraint is not None:
            try:
                row.sampling.constraint.advance(token)
            except Exception as exc:  # one request's grammar must not spoil the others
                row.fail(exc)
    return numbers, chosen.tolist()


def _constrain(logits: torch.Tensor, row: Drawer, constraint: Constraint) -> None:
    try:
        allowed = constraint.mask().to(logits.device)
        if not allowed[: len(logits)].any():
            raise ValueError("the constraint allows no token at all")
        logits[: len(allowed)].masked_fill_(~allowed[: len(logits)], -torch.inf)
        logits[len(allowed) :] = -torch.inf  # models pad their vocabularies
    except Exception as exc:  # one request's grammar must not spoil the others
        row.fail(exc)


def _penalise(scores: torch.Tensor, row: Drawer) -> None:
    seen = torch.tensor(sorted(set(row.context)), device=scores.device)
    old, penalty = scores[seen], row.sampling.repetition_penalty
    scores[seen] = torch.where(old > 0, old / penalty, old * penalty)


def _sample(scores: torch.Tensor, rows: Sequence[Drawer]) -> torch.Tensor:
    """Draw by the inverse of the distribution function, in the vocabulary's order.

    Sorting first would let two nearly equal tokens change places with the batch's rounding, and with them the reply.
    """

    def column(values: list[float]) -> torch.Tensor:
        return torch.tensor(values, device=scores.device)[:, None]

    settings = [row.sampling for row in rows]
    chances = (scores / column([s.temperature for s in settings])).softmax(-1)
    if any(s.top_p < 1 or s.top_k for s in settings):
        ranked = chances.sort(-1, descending=True).values
        width = scores.shape[-1]
        inside = torch.arange(width, device=scores.device)[None, :] < column([s.top_k or width for s in settings])
        ranked = ranked.masked_fill(~inside, 0.0)
        before = ranked.cumsum(-1) - ranked
        inside &= before < column([s.top_p for s in settings]) * ranked.sum(-1, keepdim=True)  # of what top_k left
        inside[:, 0] = True
        least = ranked.masked_fill(~inside, torch.inf).min(-1, keepdim=True).values
        chances = chances.masked_fill(chances < least, 0.0)
    if any(s.min_p for s in settings):
        least = chances.max(-1, keepdim=True).values * column([s.min_p for s in settings])
        chances = chances.masked_fill(chances < least, 0.0)
    heights = chances.double().cumsum(-1)
    rolled = torch.tensor([row.roll() for row in rows], dtype=torch.double, device=scores.device)[:, None]
    return torch.searchsorted(heights, rolled * heights[:, -1:], right=True)[:, 0].clamp(max=scores.shape[-1] - 1)
