"""Models for tests, yours too: they answer from a script, count their calls and need nothing."""

from __future__ import annotations

import threading
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr


class ScriptedChatModel(BaseChatModel):
    """Answer with one reply after another; the last one repeats.

    Example:
        >>> model = ScriptedChatModel(replies=["one", "two"])
        >>> [model.invoke("?").text for _ in range(3)]
        ['one', 'two', 'two']

    """

    replies: list[str]
    model_name: str = "scripted"

    _calls: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    @property
    def calls(self) -> list[list[BaseMessage]]:
        """The prompts received so far."""
        return self._calls

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._lock:
            reply = self.replies[min(len(self._calls), len(self.replies) - 1)]
            self._calls.append(messages)
        message = AIMessage(reply, response_metadata={"model_name": self.model_name})
        return ChatResult(generations=[ChatGeneration(message=message)])
