"""A teacher that knows the gold: it plays a task's demonstration. For making training data, never for a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from cmat_graph.errors import ModelNotFoundError


class ExpertChatModel(BaseChatModel):
    """Play the gold replies of the task named in the prompt, one each turn.

    Args:
        demonstrations: Task prompt to gold replies, as `env.demonstrations()` gives them.

    """

    demonstrations: Mapping[str, Sequence[str]]
    model_name: str = "expert"

    @property
    def _llm_type(self) -> str:
        return "expert"

    def _begun(self, text: str) -> Sequence[str] | None:
        """Find the task below which lessons, or a notice of what was left out, were put."""
        known = [task for task in self.demonstrations if text.startswith(f"{task}\n\n")]
        return self.demonstrations[max(known, key=len)] if known else None

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        task = next((str(m.text) for m in messages if m.type == "human"), "")
        replies = self.demonstrations.get(task) or self._begun(task)
        if replies is None:
            raise ModelNotFoundError("the expert knows no demonstration of this task; it can only play its own tasks")
        # A turn that the checker sent back is played again: the expert knows that it is right.
        sent_back = sum(m.type == "human" and str(m.text).startswith("Checker: ") for m in messages)
        turn = sum(m.type == "ai" for m in messages) - sent_back
        message = AIMessage(
            replies[min(max(turn, 0), len(replies) - 1)], response_metadata={"model_name": self.model_name}
        )
        return ChatResult(generations=[ChatGeneration(message=message)])
