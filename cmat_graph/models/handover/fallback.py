"""`HandOver`: a small model that answers what it is sure of, and one behind it that answers the rest."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.exceptions import OutputParserException
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata, add_usage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableConfig
from pydantic import PrivateAttr

from cmat_graph.errors import ConfigurationError
from cmat_graph.models.handover.confidence import raw_confidence
from cmat_graph.models.handover.foreign import fits
from cmat_graph.models.handover.outages import DOWN, FAILURES, is_outage
from cmat_graph.models.handover.seating import PairChatModel, as_chunk, name_of, quiet, seated

logger = logging.getLogger(__name__)

First = AIMessage | Exception
"""What came of asking the primary."""


class HandOver(PairChatModel):
    """Answer with a small model when it is sure, else with the model behind it.

    Nothing of the small model's reply is seen before it stands: a stream waits for it. `response_metadata` tells
    `handed_over`, why (`hand_over_reason`: `unsure`, `failed` or `invalid`) and how sure the small model was; the
    usage is that of both, so budgets hold, at the price of the one that answered.

    A primary that is down is answered for, and while the fallback is down an unsure reply stands. Beside `failures` and
    `fallback_failures` that is what providers' clients raise when they cannot connect, are told to slow down or find a
    broken server; anything else, such as a wrong key, is raised.

    Args:
        primary: Answers first. It has to say how sure it is: a `TinyAgent` does, and a model that returns OpenAI's
            log-probabilities (`logprobs=True`).
        fallback: Answers when the primary is unsure, fails, or its reply cannot be used: a tool call that cannot be
            read, JSON that was cut. Any chat model: what a call asks only of TinyAgents is put in its own way.
        threshold: Confidence from which the primary's reply stands. It is a chance of success once the adapter is
            calibrated (`cmat-graph adapters calibrate`).
        failures: Exceptions of the primary that the fallback answers for.
        fallback_failures: Exceptions of the fallback that tell that it is down; an unsure reply stands then.

    Example:
        >>> from langchain_core.messages import AIMessage
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> unsure = AIMessage("5?", response_metadata={"confidence": 0.3})
        >>> small, large = ScriptedChatModel(replies=[unsure]), ScriptedChatModel(replies=["4"])
        >>> model = HandOver(primary=small, fallback=large, threshold=0.6)
        >>> model.invoke("What is 2 + 2?").text, model.counts
        ('4', {'replies': 1, 'unsure': 1})

    """

    primary: BaseChatModel
    fallback: BaseChatModel
    threshold: float = 0.6
    failures: tuple[type[Exception], ...] = FAILURES
    fallback_failures: tuple[type[Exception], ...] = DOWN

    _counts: Counter[str] = PrivateAttr(default_factory=Counter)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def prepare(self) -> None:
        """Refuse what makes no sense."""
        if not 0.0 <= self.threshold <= 1.0:
            raise ConfigurationError(f"threshold={self.threshold}: give a chance from 0 to 1")
        if self.primary is self.fallback:
            raise ConfigurationError("primary and fallback are the same model; give another fallback")

    def pair(self) -> tuple[BaseChatModel, BaseChatModel]:
        """Return primary and fallback."""
        return self.primary, self.fallback

    @property
    def counts(self) -> dict[str, int]:
        """How many replies there were, and how many were handed over for which reason."""
        with self._lock:
            return dict(self._counts)

    @property
    def model_name(self) -> str:
        """Both names, the primary's first."""
        return f"{name_of(self.primary)}, else {name_of(self.fallback)}"

    @property
    def context_chars(self) -> int | None:
        """What the primary can read."""
        chars: int | None = getattr(self.primary, "context_chars", None)
        return chars

    @property
    def _llm_type(self) -> str:
        return "hand-over"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "threshold": self.threshold}

    # -- answering ------------------------------------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = quiet(run_manager)
        first, reason = self._ask(messages, config, stop, kwargs)
        if reason is None:
            return _result(_kept(first))
        model, rest = seated(self.fallback, _for_fallback(kwargs), stop)
        try:
            return _result(_handed_over(first, model.invoke(messages, config, **rest), reason))
        except Exception as exc:
            return _result(self._stands(first, reason, exc))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = quiet(run_manager)
        first, reason = await self._aask(messages, config, stop, kwargs)
        if reason is None:
            return _result(_kept(first))
        model, rest = seated(self.fallback, _for_fallback(kwargs), stop)
        try:
            return _result(_handed_over(first, await model.ainvoke(messages, config, **rest), reason))
        except Exception as exc:
            return _result(self._stands(first, reason, exc))

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        config = quiet(run_manager)
        first, reason = self._ask(messages, config, stop, kwargs)
        if reason is None:
            yield _whole(_kept(first))
            return
        model, rest = seated(self.fallback, _for_fallback(kwargs), stop)
        begun = False
        try:
            for chunk in model.stream(messages, config, **rest):
                if not begun:
                    yield _opening(first, reason)
                begun = True
                yield _piece(chunk)
        except Exception as exc:
            if begun:  # what was said cannot be taken back
                raise
            yield _whole(self._stands(first, reason, exc))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        config = quiet(run_manager)
        first, reason = await self._aask(messages, config, stop, kwargs)
        if reason is None:
            yield _whole(_kept(first))
            return
        model, rest = seated(self.fallback, _for_fallback(kwargs), stop)
        begun = False
        try:
            async for chunk in model.astream(messages, config, **rest):
                if not begun:
                    yield _opening(first, reason)
                begun = True
                yield _piece(chunk)
        except Exception as exc:
            if begun:
                raise
            yield _whole(self._stands(first, reason, exc))

    def _ask(
        self, messages: list[BaseMessage], config: RunnableConfig, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[First, str | None]:
        model, rest = seated(self.primary, kwargs, stop)
        try:
            first: First = model.invoke(messages, config, **rest)
        except Exception as exc:
            first = self._failure(exc)
        return first, self._reason(first, kwargs)

    async def _aask(
        self, messages: list[BaseMessage], config: RunnableConfig, stop: list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[First, str | None]:
        model, rest = seated(self.primary, kwargs, stop)
        try:
            first: First = await model.ainvoke(messages, config, **rest)
        except Exception as exc:
            first = self._failure(exc)
        return first, self._reason(first, kwargs)

    def _failure(self, exc: Exception) -> Exception:
        """Take what tells that the primary is down, and raise anything else."""
        if is_outage(exc, self.failures):
            return exc
        raise exc

    # -- deciding -------------------------------------------------------------------------------------------------

    def _reason(self, first: First, kwargs: dict[str, Any]) -> str | None:
        """Return why a reply is handed over; None when it stands."""
        reason = None
        if isinstance(first, Exception):
            logger.info("the primary failed, the fallback answers: %s", first)
            reason = "failed"
        elif not fits(first, kwargs):
            reason = "invalid"
        elif confidence_of(first) < self.threshold:
            reason = "unsure"
        with self._lock:
            self._counts.update(["replies", reason] if reason else ["replies"])
        return reason

    def _stands(self, first: First, reason: str, exc: Exception) -> AIMessage:
        """Let an unsure reply stand while the fallback cannot do better; raise what is a mistake, or cannot stand."""
        if isinstance(exc, OutputParserException):
            trouble, counted = "the fallback answered with none of the choices", "fallback_invalid"
        elif is_outage(exc, self.fallback_failures):
            trouble, counted = "the fallback is down", "fallback_down"
        else:
            raise exc
        if reason != "unsure" or isinstance(first, Exception):
            raise exc
        logger.warning("%s, so an unsure reply stands: %s: %s", trouble, type(exc).__name__, exc)
        with self._lock:
            self._counts[counted] += 1
        return _told(first, handed_over=False, hand_over_reason=f"unsure, but {trouble}")


def confidence_of(reply: BaseMessage) -> float:
    """Return how sure a model was of its reply: what it says itself, or by OpenAI's log-probabilities.

    Raises:
        ConfigurationError: It tells neither.

    """
    told = reply.response_metadata
    if (said := told.get("confidence")) is not None:
        return float(said)
    logprobs = (told.get("logprobs") or {}).get("content") if isinstance(told.get("logprobs"), dict) else None
    if logprobs:
        return raw_confidence([float(token["logprob"]) for token in logprobs])
    raise ConfigurationError(
        "the primary does not say how sure it is; take a TinyAgent, or a model that returns log-probabilities "
        "(such as ChatOpenAI(..., logprobs=True))"
    )


def _for_fallback(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Leave out the name of an adapter, which the fallback does not know."""
    return {name: value for name, value in kwargs.items() if name != "model"}


def _told(reply: AIMessage, **told: Any) -> AIMessage:
    """Copy a reply without its id, with more said about it."""
    return reply.model_copy(update={"id": None, "response_metadata": {**reply.response_metadata, **told}})


def _kept(first: First) -> AIMessage:
    assert isinstance(first, AIMessage)
    return _told(first, handed_over=False)


def _about(first: First, reason: str) -> dict[str, Any]:
    told: dict[str, Any] = {"handed_over": True, "hand_over_reason": reason}
    if isinstance(first, AIMessage):
        told |= {f"primary_{name}": first.response_metadata.get(name) for name in ("model_name", "confidence")}
    return told


def _usage(first: First) -> UsageMetadata | None:
    return first.usage_metadata if isinstance(first, AIMessage) else None


def _handed_over(first: First, answer: AIMessage, reason: str) -> AIMessage:
    used = [usage for usage in (_usage(first), answer.usage_metadata) if usage is not None]
    reply = _told(answer, **_about(first, reason))
    return reply.model_copy(update={"usage_metadata": add_usage(*used) if len(used) == 2 else next(iter(used), None)})


def _opening(first: First, reason: str) -> ChatGenerationChunk:
    """Open the fallback's stream: say that it was handed over, and what the primary used."""
    said = AIMessageChunk(content="", response_metadata=_about(first, reason), usage_metadata=_usage(first))
    return ChatGenerationChunk(message=said)


def _piece(chunk: BaseMessage) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=as_chunk(chunk).model_copy(update={"id": None}))


def _whole(reply: AIMessage) -> ChatGenerationChunk:
    """Stream a reply that stands in one piece."""
    return ChatGenerationChunk(message=as_chunk(reply).model_copy(update={"chunk_position": "last"}))


def _result(reply: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=reply)])
