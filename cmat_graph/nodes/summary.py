"""The summary: a model's notes on those turns of an attempt that no longer fit the assistant's prompt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from typing import Any

from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp

from cmat_graph.errors import ConfigurationError
from cmat_graph.memory.short_term import shorten
from cmat_graph.nodes.calling import Prompt, Speaker, ask, show
from cmat_graph.nodes.seat import Call, Do, Turn
from cmat_graph.state import Loop
from cmat_graph.types import Budget, Message

TURN_CHARS = 4_000
"""How much of one turn the model is shown."""
MATERIAL_CHARS = 24_000
"""How much it is shown in all."""
_log = logging.getLogger(__name__)

SumUp = Callable[[Turn, int, int], Generator[Call | Do, Any, Loop]]
"""Takes until which message to sum up, and in how many characters; returns what changes, nothing when it failed."""


def make_summary(model: Speaker, *, prompt: Prompt, budget: Budget | None) -> SumUp:
    """Build what keeps the notes: each time from those so far and the turns that came then, so that it reads each once.

    A model that fails leaves them as they were; the log says so once.
    """
    warned: list[bool] = []

    def sum_up(turn: Turn, until: int, chars: int) -> Generator[Call | Do, Any, Loop]:
        loop = turn.loop
        material = _material(loop, loop["trajectory"][loop.get("summarised", 0) : until])
        limit = min(MATERIAL_CHARS, model.context_chars or MATERIAL_CHARS)
        messages: list[Any] = [prompt.fill(turn.context.rules), {"role": "user", "content": shorten(material, limit)}]
        # Streamed from the assistant's node, its words would look like the assistant's.
        before, turn.asking = turn.asking, {**turn.config, "tags": [*(turn.config.get("tags") or ()), TAG_NOSTREAM]}
        try:
            reply = yield from ask(turn, "summary", model, messages, budget)
            if not (notes := " ".join(reply.text.split())[:chars]):
                raise ValueError("the model said nothing")
        except (GraphBubbleUp, ConfigurationError):
            raise
        except Exception as exc:
            if not warned:
                warned.append(True)
                _log.warning("turns that no longer fit are not summed up: %s: %s", type(exc).__name__, exc)
            return {}
        finally:
            turn.asking = before
        return {"summary": notes, "summarised": until}

    return sum_up


def _material(loop: Loop, turns: Sequence[Message]) -> str:
    notes = f"Your notes so far:\n{loop['summary']}\n\n" if loop.get("summary") else ""
    # Indented, so that no line of a turn looks like the start of another's.
    told = "\n".join(f"{turn['role']}: {shorten(show(turn), TURN_CHARS)}".replace("\n", "\n  ") for turn in turns)
    return f"The task:\n{shorten(loop['task'], TURN_CHARS)}\n\n{notes}What came then:\n{told}\n\nNotes:"
