"""How agents are asked: one alone, or many at once in few large batches."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable

from cmat_graph.debate.records import Said, Turn
from cmat_graph.debate.rounds import Rules
from cmat_graph.debate.seats import Seats, is_local
from cmat_graph.errors import CmatError, ConfigurationError, EpisodeFailure, PromptTooLongError
from cmat_graph.traces.recorder import told_of
from cmat_graph.types import Message

REPLY_CHARS = 50_000
"""Longest reply that is kept, and told to others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What one agent is asked in one round."""

    role: str
    agent: int
    round: int
    messages: list[Message]
    seed: int
    summary: str = ""
    """The others' solutions in one, as they stand in the prompt."""

    @property
    def node(self) -> str:
        """The seat's name."""
        return f"{self.role}-{self.agent}"

    def settings(self, model: Any) -> dict[str, Any]:
        """Return what a call takes besides; only local models repeat a reply by its seed."""
        return {"seed": self.seed} if is_local(model) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """What came of it."""

    text: str = ""
    error: str = ""
    model: str = ""
    adapter: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    told: dict[str, Any] = field(default_factory=dict)
    key: str = ""
    """Trace key."""


Heard = BaseMessage | Exception


def ask_all(asked: Sequence[Asked], seats: Seats, *, concurrency: int = 16) -> list[Answered]:
    """Ask all of them at once; answers come in the order of the questions.

    Local agents get theirs through their engine, in batches that mix adapters; each group of other models through its
    own `batch`. A call that fails is an answer with its error.

    Args:
        asked: The questions.
        seats: Who answers.
        concurrency: Calls in flight of each model that is not local.

    Raises:
        CmatError: A mistake in how models were set up, which would meet every question alike.

    """
    begin = time.perf_counter()
    models = [seats.of_node(each.role, each.agent) for each in asked]
    heard: list[Heard | None] = [None] * len(asked)
    waiting: list[tuple[int, Callable[[], AIMessage]]] = []
    others: dict[int, list[int]] = {}
    for i, model in enumerate(models):
        if not is_local(model):
            others.setdefault(id(model), []).append(i)
    with ThreadPoolExecutor(max_workers=max(1, len(others)), thread_name_prefix="debate") as pool:
        groups = [
            (places, pool.submit(_batch, models[places[0]], [asked[i] for i in places], concurrency))
            for places in others.values()
        ]
        for i, (each, model) in enumerate(zip(asked, models, strict=True)):
            if is_local(model):
                try:
                    waiting.append((i, model.begin(each.messages, **each.settings(model))))  # type: ignore[attr-defined]
                except Exception as exc:
                    heard[i] = failure(exc)
        for i, wait in waiting:
            try:
                heard[i] = wait()
            except Exception as exc:
                heard[i] = failure(exc)
        for places, group in groups:
            for i, reply in zip(places, group.result(), strict=True):
                heard[i] = reply
    share = (time.perf_counter() - begin) / max(1, len(asked))
    return [answered(reply, seconds=share, model=model) for reply, model in zip(heard, models, strict=True)]


def _batch(model: Runnable[Any, Any], asked: Sequence[Asked], concurrency: int) -> list[Heard]:
    from cmat_graph.nodes.calling import to_langchain  # brings LangGraph, which local agents do not need

    prompts = [[to_langchain(message) for message in each.messages] for each in asked]
    replies = model.batch(prompts, {"max_concurrency": concurrency}, return_exceptions=True)
    return [failure(reply) if isinstance(reply, Exception) else reply for reply in replies]


def failure(exc: Exception) -> Exception:
    """Return what is this one call's failure; raise what every call would meet."""
    if isinstance(exc, CmatError) and not isinstance(exc, EpisodeFailure):
        raise exc
    return exc


def answered(heard: Heard | None, *, seconds: float, model: Any = None, key: str = "") -> Answered:
    """Read a reply, or why there is none."""
    if isinstance(heard, Exception) or heard is None:
        return Answered(error=explain(heard), seconds=seconds)
    usage = getattr(heard, "usage_metadata", None) or {}
    named = heard.response_metadata
    return Answered(
        text=clean(str(heard.text)),
        model=str(named.get("model_name") or getattr(model, "model_name", "") or ""),
        adapter=str(named.get("adapter") or ""),
        input_tokens=int(usage.get("input_tokens", 0)),
        output_tokens=int(usage.get("output_tokens", 0)),
        seconds=seconds,
        told=told_of(heard) if isinstance(heard, AIMessage) else {},
        key=key,
    )


def said(rules: Rules, asked: Asked, reply: Answered) -> Said:
    """Put a question and what came of it together: a `Turn`, or what was said for a summary."""
    about: dict[str, Any] = {
        "agent": asked.agent,
        "round": asked.round,
        "messages": asked.messages,
        "reply": reply.text,
        "error": reply.error,
        "model": reply.model,
        "adapter": reply.adapter,
        "input_tokens": reply.input_tokens,
        "output_tokens": reply.output_tokens,
        "seconds": reply.seconds,
        "told": reply.told,
        "key": reply.key,
    }
    if asked.role == "summary":
        return Said(**about)
    answer = None if reply.error else rules.read(reply.text)
    return Turn(**about, answer=answer, summary=asked.summary)


def refuse_unaskable(question: str, name: str = "") -> None:
    """Refuse a question that nobody could be asked whole.

    Raises:
        ConfigurationError: It is empty.
        PromptTooLongError: It is longer than what is kept of a text; where a society checks, that is one episode's end.

    """
    which = f"question {name!r}" if name else "the question"
    if not question.strip():
        raise ConfigurationError(f"{which} is empty; give some text")
    if len(question) > REPLY_CHARS:
        raise PromptTooLongError(f"{which} has {len(question):,} characters; at most {REPLY_CHARS:,} can be asked")


def clean(text: str) -> str:
    """Cut what is endless, and replace what no database takes: half a character, and NUL."""
    text = text[:REPLY_CHARS].replace("\0", "\ufffd")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def explain(exc: Exception | None) -> str:
    """Say in one line why a call failed."""
    told = " ".join(str(exc).split())
    return f"{type(exc).__name__}: {told}"[:500]
