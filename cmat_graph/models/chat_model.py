"""`TinyAgent`: a LangChain chat model over local weights, the base alone or with an adapter."""

from __future__ import annotations

import os
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from cmat_graph.adapters import AdapterCard, AdapterRegistry
from cmat_graph.models.engine import Engine, shared_engine
from cmat_graph.models.lane import Sampling

REPLY_TOKENS = 128
"""Tokens of the window kept for the reply."""
_ROLES = {"system": "system", "human": "user", "ai": "assistant"}


class TinyAgent(BaseChatModel):
    """A small local model as a chat model. Build it with `TinyAgent.load`.

    All instances over one base share its weights, and calls that arrive together are answered in one batch; so
    async calls, threads and `batch` all help.
    """

    model_name: str
    adapter: str = ""
    """Id of the adapter that answers (`node/name`); empty for the base alone."""
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    _engine: Engine = PrivateAttr()
    _adapter_key: str = PrivateAttr(default="")

    @classmethod
    def load(
        cls,
        source: AdapterCard | str | os.PathLike[str] = "nano",
        *,
        adapter: AdapterCard | str | None = None,
        adapters: str | os.PathLike[str] | AdapterRegistry = "adapters",
        dtype: str | None = None,
        **settings: Any,
    ) -> TinyAgent:
        """Load a base, and an adapter if one is named.

        Args:
            source: An adapter's card (its base is loaded with it), or a base: `nano`, a folder, a hub id.
            adapter: A card, or the name of an adapter in `adapters`.
            adapters: The adapter registry, or its folder.
            dtype: A torch dtype name.
            **settings: `temperature`, `max_tokens`, `top_p`, `seed`.

        Example:
            >>> model = TinyAgent.load("nano")  # doctest: +SKIP

        """
        if isinstance(source, AdapterCard):
            source, adapter = source.base, source
        if isinstance(adapter, str):
            registry = adapters if isinstance(adapters, AdapterRegistry) else AdapterRegistry(adapters)
            adapter = registry.get(adapter)
        engine = shared_engine(os.fspath(source), dtype=dtype)
        model = cls(model_name=os.fspath(source), adapter=adapter.id if adapter is not None else "", **settings)
        model._engine = engine
        model._adapter_key = engine.add_adapter(adapter) if adapter is not None else ""
        return model

    @property
    def context_chars(self) -> int:
        """About how many characters of prompt leave room for a reply, at two characters a token."""
        tokens = min(self._engine.window, int(self._engine.tokenizer.model_max_length))
        return max(0, tokens - REPLY_TOKENS) * 2

    def get_token_ids(self, text: str) -> list[int]:
        """Encode a text; so `token_counter=model` counts with the model's own tokenizer."""
        return list(self._engine.tokenizer.encode(text, add_special_tokens=False))

    @property
    def _llm_type(self) -> str:
        return "tinyagent"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, "adapter": self.adapter, "temperature": self.temperature}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        prompt = self._engine.encode([_to_chat(message) for message in messages])
        sampling = Sampling(
            max_tokens=max_tokens or self.max_tokens,
            temperature=self.temperature if temperature is None else temperature,
            top_p=self.top_p,
            seed=self.seed if seed is None else seed,
        )
        reply = self._engine.submit(prompt, adapter=self._adapter_key, sampling=sampling).result()
        text = reply.text
        for mark in stop or ():
            text = text.split(mark, 1)[0]
        message = AIMessage(
            text,
            usage_metadata=UsageMetadata(
                input_tokens=reply.input_tokens,
                output_tokens=reply.output_tokens,
                total_tokens=reply.input_tokens + reply.output_tokens,
            ),
            response_metadata={
                "model_name": self.model_name,
                "adapter": self.adapter,
                "finish_reason": reply.finish_reason,
            },
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _to_chat(message: BaseMessage) -> dict[str, Any]:
    return {"role": _ROLES.get(message.type, "user"), "content": str(message.text)}
