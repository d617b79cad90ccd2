"""What clients get: LangChain's messages as OpenAI's completions and chunks."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_usage


class Answer:
    """One answer in the making: the head that its completion, or all of its chunks, share."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._id = f"chatcmpl-{uuid.uuid4().hex}"
        self._created = int(time.time())

    def completion(self, replies: Sequence[AIMessage]) -> dict[str, Any]:
        """Lay out whole replies."""
        choices = [_choice(index, reply) for index, reply in enumerate(replies)]
        return self._head("chat.completion") | {
            "choices": choices,
            "usage": usage([reply.usage_metadata for reply in replies]),
        }

    def chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Lay out a piece of one choice."""
        return self._head("chat.completion.chunk") | {"choices": [choice]}

    def last_chunk(self, used: Sequence[UsageMetadata | None]) -> dict[str, Any]:
        """Lay out the chunk that tells what a stream has used."""
        return self._head("chat.completion.chunk") | {"choices": [], "usage": usage(used)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._model}


class StreamedChoice:
    """One choice that comes in pieces; remembers what its end must tell."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.usage: UsageMetadata | None = None
        self._metadata: dict[str, Any] = {}
        self._calls: list[str | int | None] = []

    def begin(self) -> dict[str, Any]:
        """Return the first piece: who speaks."""
        return self._piece({"role": "assistant", "content": ""})

    def pieces(self, chunk: AIMessageChunk) -> Iterator[dict[str, Any]]:
        """Yield what a chunk adds."""
        self._metadata |= chunk.response_metadata
        if chunk.usage_metadata is not None:
            self.usage = add_usage(self.usage, chunk.usage_metadata)
        if reasoning := chunk.additional_kwargs.get("reasoning_content"):
            yield self._piece({"reasoning_content": reasoning})
        if text := str(chunk.text):
            yield self._piece({"content": text})
        if calls := [self._call(dict(call)) for call in chunk.tool_call_chunks]:
            yield self._piece({"tool_calls": calls})

    def end(self) -> dict[str, Any]:
        """Return the last piece: why it ended."""
        told = _told(self._metadata)
        return self._piece({}) | told | {"finish_reason": _reason(self._metadata, called=bool(self._calls))}

    def _piece(self, delta: dict[str, Any]) -> dict[str, Any]:
        return {"index": self.index, "delta": delta, "logprobs": None, "finish_reason": None}

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        """Lay out a piece of a tool call; one with an index seen before goes on where it was."""
        function = {"arguments": call["args"] or ""}
        if call["index"] is not None and call["index"] in self._calls:
            return {"index": self._calls.index(call["index"]), "function": function}
        self._calls.append(call["index"])
        named = {"name": call["name"] or "", **function}
        return {
            "index": len(self._calls) - 1,
            "id": call["id"] or _call_id(),
            "type": "function",
            "function": named,
        }


def usage(used: Sequence[UsageMetadata | None]) -> dict[str, Any]:
    """Sum up what the choices of one request have used; their prompt is the same and counts once."""
    known = [each for each in used if each is not None]
    prompt = max((each["input_tokens"] for each in known), default=0)
    written = sum(each["output_tokens"] for each in known)
    cached = max((each.get("input_token_details", {}).get("cache_read", 0) for each in known), default=0)
    reasoned = sum(each.get("output_token_details", {}).get("reasoning", 0) for each in known)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoned},
    }


def _choice(index: int, reply: AIMessage) -> dict[str, Any]:
    calls = [_whole_call(call["id"], call["name"], json.dumps(call["args"])) for call in reply.tool_calls]
    calls += [_whole_call(call["id"], call["name"], call["args"] or "") for call in reply.invalid_tool_calls]
    text = str(reply.text)
    message: dict[str, Any] = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
    if calls:
        message["tool_calls"] = calls
    if reasoning := reply.additional_kwargs.get("reasoning_content"):
        message["reasoning_content"] = reasoning
    told = _told(reply.response_metadata)
    reason = _reason(reply.response_metadata, called=bool(calls))
    return {"index": index, "message": message, "logprobs": None, "finish_reason": reason} | told


def _whole_call(call_id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    return {
        "id": call_id or _call_id(),
        "type": "function",
        "function": {"name": name or "", "arguments": arguments},
    }


def _call_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _reason(metadata: dict[str, Any], *, called: bool) -> str:
    reason = str(metadata.get("finish_reason") or "stop")
    return "tool_calls" if called and reason == "stop" else reason


def _told(metadata: dict[str, Any]) -> dict[str, Any]:
    """Pick what a choice tells beside its text; `confidence` is our own, and other clients leave it aside."""
    told = {"confidence": metadata["confidence"]} if metadata.get("confidence") is not None else {}
    if logprobs := metadata.get("logprobs"):
        told["logprobs"] = {"content": [_logprob(each) for each in logprobs["content"]], "refusal": None}
    return told


def _logprob(told: dict[str, Any]) -> dict[str, Any]:
    spelled = list(told["token"].encode(errors="replace"))
    return {"token": told["token"], "logprob": told["logprob"], "bytes": spelled, "top_logprobs": []}
