"""`SocietyChatModel`: a whole debate behind one chat model, for any seat that takes one."""

from __future__ import annotations

from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseRunManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph, StateGraph
from pydantic import ConfigDict, PrivateAttr, SkipValidation

from cmat_graph.errors import ConfigurationError, EngineError

INSIDE = "society"
"""Node under which the debate's own calls begin: its episode is the one around it."""


class SocietyChatModel(BaseChatModel):
    """Ask a society as one would ask a model: the reply is one that gave the consensus.

    The last human message is the question; what comes before it, a system prompt say, is told to every agent. In the
    Checker's seat of `create_cmat_graph` the debate's prompts are `pack="verdict"`. Its agents' calls are recorded in
    the episode around it, under their own nodes, and its own call with the tokens of all.

    Example:
        >>> from cmat_graph.debate import create_debate_graph
        >>> from cmat_graph.testing import ScriptedChatModel
        >>> society = SocietyChatModel(debate=create_debate_graph(ScriptedChatModel(replies=["Answer: 4"])))
        >>> reply = society.invoke("What is 2 + 2?")
        >>> reply.text, reply.response_metadata["debate"]["share"]
        ('Answer: 4', 1.0)

    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    debate: SkipValidation[Any]
    """What `create_debate_graph` returns, compiled or not."""
    model_name: str = "society"

    _graph: Any = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Compile the debate."""
        super().model_post_init(context)
        if not isinstance(self.debate, StateGraph | CompiledStateGraph):
            raise ConfigurationError("a society needs a debate: SocietyChatModel(debate=create_debate_graph(...))")
        self._graph = self.debate.compile(name=self.model_name) if isinstance(self.debate, StateGraph) else self.debate

    @property
    def _llm_type(self) -> str:
        return "society"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = _config(run_manager, CallbackManager)
        return self._result(self._graph.invoke({"messages": messages}, config), stop)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = _config(run_manager, AsyncCallbackManager)
        return self._result(await self._graph.ainvoke({"messages": messages}, config), stop)

    def _result(self, state: dict[str, Any], stop: list[str] | None) -> ChatResult:
        debate, last = state["debate"], state["messages"][-1]
        if debate["stopped"] == "error":  # an error must not look like an empty answer
            raise EngineError(f"nobody in the society could answer: {debate['error'].splitlines()[0]}")
        text = str(last.text)
        for mark in filter(None, stop or ()):
            text = text.split(mark, 1)[0]
        calls = (*debate["turns"], *debate["summaries"])
        read, written = (sum(call[name] for call in calls) for name in ("input_tokens", "output_tokens"))
        usage = UsageMetadata(input_tokens=read, output_tokens=written, total_tokens=read + written)
        message = AIMessage(
            text,
            usage_metadata=usage,
            response_metadata={"model_name": self.model_name, "debate": last.response_metadata["debate"]},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _config(run: BaseRunManager | None, manager: type[CallbackManager] | type[AsyncCallbackManager]) -> RunnableConfig:
    """Let those who watch the society's run watch its agents' as well; LangChain has no children of a model's run."""
    config: RunnableConfig = {"metadata": {"cmat_node": INSIDE}}
    if run is not None:
        child = manager(handlers=[], parent_run_id=run.run_id)
        child.set_handlers(run.inheritable_handlers)
        child.add_tags(run.inheritable_tags)
        child.add_metadata(run.inheritable_metadata)
        config["callbacks"] = child
    return config
