"""`Trial`: a new model beside the one that serves, for a share of the episodes or unseen, until it proves worse."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from pydantic import PrivateAttr

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.adapters.card import check_name
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError
from cmat_graph.models.handover.beside import Beside, agree
from cmat_graph.models.handover.ledger import CANDIDATE, FILE
from cmat_graph.models.handover.referee import Hook, Referee, TrialResult
from cmat_graph.models.handover.seating import PairChatModel, as_chunk, episode_of, name_of, quiet, seated
from cmat_graph.models.load import load_model
from cmat_graph.traces import outcomes

logger = logging.getLogger(__name__)


class Trial(PairChatModel):
    """Two models in one seat: the one that serves, and a candidate that has to prove itself.

    As a *canary* the candidate answers a share of the episodes, each from its first reply to its last. When its
    success rate is worse, it is rolled back: the current model answers everything from then on, in every process that
    shares the state. In *shadow* the current model answers everything, and the candidate is asked the same beside it;
    only how often they agree is kept.

    CMAT's graph tells how its episodes ended, wherever the trial sits in it; other apps call `report`, and name the
    episode at each call by LangGraph's `thread_id`: without one, all conversations that begin with the same words are
    one episode, whose outcome nobody can report. A candidate that raises is answered for by the current model, and its
    episode counts as failed.

    A trial ends with a roll back, or by you: use the model that you want, and promote its adapter
    (`cmat-graph adapters promote`).

    Args:
        current: The model that serves.
        candidate: The one on trial.
        share: Share of the episodes.
        mode: `canary` or `shadow`.
        alpha: The chance that a candidate which is as good is rolled back all the same, over all looks together.
        state: File that keeps the trial over restarts and between processes; None keeps it in this process.
        name: Tells the trials of one file apart; by default the two models' names.
        registry: Where the current adapter is promoted again at a roll back, if the candidate is promoted by then.
        on_rollback: Called after a roll back, with how the trial stood.
        on_promote: Called when the candidate is clearly better; it answers all episodes from then on. Without it, it
            goes on with its share, and its result says `better`; nothing is ever promoted by itself.

    Raises:
        ConfigurationError: The arguments cannot work; the message names the fix.

    Example:
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> old, new = ScriptedChatModel(replies=["old"]), ScriptedChatModel(replies=["new"], model_name="new")
        >>> trial = Trial(current=old, candidate=new, share=1.0)
        >>> trial.invoke("Hello", {"metadata": {"thread_id": "7"}}).text
        'new'
        >>> trial.report("7", success=True)
        True
        >>> trial.result().outcomes["candidate"].successes
        1

    """

    current: BaseChatModel
    candidate: BaseChatModel
    share: float = 0.1
    mode: Literal["canary", "shadow"] = "canary"
    alpha: float = 0.05
    state: str | Path | None = None
    name: str = ""
    registry: AdapterRegistry | None = None
    on_rollback: Hook | None = None
    on_promote: Hook | None = None

    _referee: Referee = PrivateAttr()
    _beside: Beside = PrivateAttr(default_factory=Beside)

    @classmethod
    def load(cls, registry: AdapterRegistry, candidate: str, *, current: str | None = None, **settings: Any) -> Self:
        """Try an adapter of a registry against the one its node has.

        Args:
            registry: Where they lie; the trial is kept beside them.
            candidate: Name of the adapter on trial.
            current: Name of the adapter that serves; None takes the promoted one, and the bare base where none is.
            **settings: Of the trial, such as `share` and `mode`.

        Raises:
            AdapterNotFoundError: One of the two is not there.
            ConfigurationError: They are the same, or a setting cannot work.

        Example:
            >>> trial = Trial.load(AdapterRegistry("adapters/"), "assistant/new", share=0.2)  # doctest: +SKIP

        """
        new = registry.get(candidate)
        old = _serving(registry, new.node, current)
        if old is not None and old.id == new.id:
            raise ConfigurationError(f"{new.id} is the current adapter itself; name another candidate, or current=")
        settings.setdefault("name", f"{_version(old) if old else new.base} against {_version(new)}")
        check_name(new.node)
        settings.setdefault("state", registry.root / new.node / FILE)
        base = (old or new).base
        return cls(
            current=load_model(base, adapter=old.id if old else None, adapters=registry),
            candidate=load_model(new.base, adapter=new.id, adapters=registry),
            registry=registry,
            **settings,
        )

    def prepare(self) -> None:
        """Refuse what makes no sense, and go on where the trial stood."""
        if not 0.0 <= self.share <= 1.0:
            raise ConfigurationError(f"share={self.share}: give a share of the episodes, from 0 to 1")
        if not 0.0 < self.alpha < 1.0:
            raise ConfigurationError(f"alpha={self.alpha}: give a chance between 0 and 1")
        old, new = name_of(self.current), name_of(self.candidate)
        if self.current is self.candidate or (old == new and hasattr(self.candidate, "adapter")):
            raise ConfigurationError(f"{old} is tried against itself; give another candidate")
        self._referee = Referee(
            self.name or f"{old} against {new}",
            Path(self.state) if self.state is not None else None,
            share=self.share,
            alpha=self.alpha,
            on_worse=self._roll_back,
            on_better=self.on_promote,
            mode=self.mode,
            current=old,
            candidate=new,
        )
        outcomes.listen(self._referee)

    def pair(self) -> tuple[BaseChatModel, BaseChatModel]:
        """Return the current model and the candidate."""
        return self.current, self.candidate

    @property
    def model_name(self) -> str:
        """Both names, the current one's first."""
        return f"{name_of(self.current)}, {name_of(self.candidate)} on trial"

    @property
    def _llm_type(self) -> str:
        return "trial"

    # -- outcomes -------------------------------------------------------------------------------------------------

    def report(self, episode: str, success: bool) -> bool:
        """Tell how an episode ended: its LangGraph thread, or CMAT's own id.

        Returns:
            False when nothing is counted: the trial had no part in it, knows its outcome already, or is over.

        """
        return self._referee.report(episode, success)

    def result(self) -> TrialResult:
        """Return how the trial stands, with what other processes have added."""
        return self._referee.result()

    def wait(self) -> None:
        """Wait until a candidate in shadow has answered all it was asked."""
        self._beside.wait()

    def _roll_back(self, result: TrialResult) -> None:
        try:
            if self.registry is not None:
                _restore(self.registry, self.current, self.candidate)
        finally:  # whoever is to be woken is, whatever became of the registry
            if self.on_rollback is not None:
                self.on_rollback(result)

    # -- answering: whoever is chosen answers as if there were no trial, with its own tokens, usage and name -------

    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer with whoever has the episode."""
        config, episode, arm = self._choose(input, config)
        error: Exception | None = None
        if arm == CANDIDATE:
            model, rest = seated(self.candidate, kwargs, stop)
            try:
                return model.invoke(input, config, **rest)
            except Exception as exc:
                error = exc
        model, rest = seated(self.current, kwargs, stop)
        reply = model.invoke(input, config, **rest)
        self._after(episode, reply, error, input, config, stop, kwargs)
        return reply

    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Answer with whoever has the episode."""
        config, episode, arm = self._choose(input, config)
        error: Exception | None = None
        if arm == CANDIDATE:
            model, rest = seated(self.candidate, kwargs, stop)
            try:
                return await model.ainvoke(input, config, **rest)
            except Exception as exc:
                error = exc
        model, rest = seated(self.current, kwargs, stop)
        reply = await model.ainvoke(input, config, **rest)
        self._after(episode, reply, error, input, config, stop, kwargs)
        return reply

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream from whoever has the episode."""
        config, episode, arm = self._choose(input, config)
        error: Exception | None = None
        if arm == CANDIDATE:
            model, rest = seated(self.candidate, kwargs, stop)
            begun = False
            try:
                for chunk in model.stream(input, config, **rest):
                    begun = True
                    yield as_chunk(chunk)
                return
            except Exception as exc:
                if begun:  # what was said cannot be taken back
                    self._referee.failed(episode, exc)
                    raise
                error = exc
        model, rest = seated(self.current, kwargs, stop)
        said = AIMessageChunk(content="")
        for chunk in model.stream(input, config, **rest):
            said += as_chunk(chunk)
            yield as_chunk(chunk)
        self._after(episode, said, error, input, config, stop, kwargs)

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Stream from whoever has the episode."""
        config, episode, arm = self._choose(input, config)
        error: Exception | None = None
        if arm == CANDIDATE:
            model, rest = seated(self.candidate, kwargs, stop)
            begun = False
            try:
                async for chunk in model.astream(input, config, **rest):
                    begun = True
                    yield as_chunk(chunk)
                return
            except Exception as exc:
                if begun:
                    self._referee.failed(episode, exc)
                    raise
                error = exc
        model, rest = seated(self.current, kwargs, stop)
        said = AIMessageChunk(content="")
        async for chunk in model.astream(input, config, **rest):
            said += as_chunk(chunk)
            yield as_chunk(chunk)
        self._after(episode, said, error, input, config, stop, kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        """Answer `generate`, which knows a run of its own: the model's own is kept quiet."""
        return _result(self.invoke(messages, quiet(run_manager), stop=stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _result(await self.ainvoke(messages, quiet(run_manager), stop=stop, **kwargs))

    def _choose(self, given: Any, config: RunnableConfig | None) -> tuple[RunnableConfig, str, str]:
        config = ensure_config(config)
        episode = episode_of(config, given)
        return config, episode, self._referee.arm(episode, canary=self.mode == "canary")

    def _after(
        self,
        episode: str,
        reply: BaseMessage,
        error: Exception | None,
        given: LanguageModelInput,
        config: RunnableConfig,
        stop: list[str] | None,
        kwargs: dict[str, Any],
    ) -> None:
        """Count a candidate's failure, now that the current model has answered for it; or ask it in shadow."""
        if error is not None:
            self._referee.failed(episode, error)
        if self.mode == "canary" or not self._referee.draw(episode):
            return
        alone: RunnableConfig = {"callbacks": [], "metadata": dict(config.get("metadata") or {})}

        def compare() -> None:
            try:
                model, rest = seated(self.candidate, kwargs, stop)
                result = "agreed" if agree(model.invoke(given, alone, **rest), reply) else "differed"
            except Exception as exc:
                logger.info("trial %s: the candidate failed in shadow: %s", self.name, exc)
                result = "failed"
            self._referee.compared(episode, result)

        if not self._beside.submit(compare):
            self._referee.compared(episode, "skipped")


def _restore(registry: AdapterRegistry, current: BaseChatModel, candidate: BaseChatModel) -> None:
    """Promote the adapter that served again, where the candidate is promoted; what else is, somebody chose by hand."""
    serving, tried = (str(getattr(model, "adapter", "")) for model in (current, candidate))
    if not tried:
        return
    node, name = _place(registry, tried)
    promoted = registry.current(node)
    if promoted != name:
        logger.info("the %s's promoted adapter is %s; that is left as it is", node, promoted or "none")
        return
    try:
        if not serving:
            raise AdapterNotFoundError("there was no adapter before it")
        registry.promote(registry.get(serving))
    except (AdapterNotFoundError, OSError) as exc:
        logger.warning("%s is still promoted: %s; promote another with: cmat-graph adapters promote NAME", tried, exc)


def _place(registry: AdapterRegistry, adapter: str) -> tuple[str, str]:
    """Return an adapter's node and name, also of one that is gone by now."""
    try:
        card = registry.get(adapter)
    except AdapterNotFoundError:
        node, _, name = adapter.rpartition("/")
        return node, name
    return card.node, card.name


def _serving(registry: AdapterRegistry, node: str, named: str | None) -> AdapterCard | None:
    """Return the card of the adapter that serves, if one does."""
    if named:
        return registry.get(named)
    promoted = registry.current(node)
    if not promoted:
        return None
    try:
        return registry.get(f"{node}/{promoted}")
    except AdapterNotFoundError as exc:
        raise AdapterNotFoundError(
            f"{node}/{promoted} is promoted, but cannot be read: {exc}; give current=NAME, or promote another with: "
            "cmat-graph adapters promote NAME"
        ) from exc


def _version(card: AdapterCard) -> str:
    return f"{card.id}@{card.weights_hash[:12]}"


def _result(reply: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=reply.model_copy(update={"id": None}))])
