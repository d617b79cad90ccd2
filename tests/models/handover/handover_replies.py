"""Replies that say how sure they are."""

from __future__ import annotations

from langchain_core.messages import AIMessage


def said(text, confidence=None, *, calls=(), invalid=(), tokens=0, **told):
    """Make a reply with a confidence."""
    about = {"confidence": confidence, "raw_confidence": confidence} if confidence is not None else {}
    usage = {"input_tokens": tokens, "output_tokens": tokens, "total_tokens": 2 * tokens} if tokens else None
    return AIMessage(
        text,
        tool_calls=list(calls),
        invalid_tool_calls=list(invalid),
        usage_metadata=usage,
        response_metadata={**about, **told},
    )
