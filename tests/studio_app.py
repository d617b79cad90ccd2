"""An app as a user would write it: a clerk who counts wrongly at first, and asks before a letter is sent.

Its models answer by what they read, so that many runs of one server do not disturb each other.
"""

from __future__ import annotations

from langchain_core.messages import AIMessage
from langchain_core.tools import tool

from cmat_graph import create_cmat_graph
from cmat_graph.testing import StreamingChatModel
from cmat_graph.traces import SQLTraceStore, TraceHandler


class Clerk(StreamingChatModel):
    """Counts wrongly until a lesson helps; writes letters with a tool."""

    def _result(self, messages):
        asked = " ".join(message.text for message in messages if message.type == "human")
        if messages[-1].type == "tool":
            return self._say("Sent.")
        if "letter" in asked:
            return self._say(AIMessage("", tool_calls=[{"name": "send", "args": {"to": "Ann"}, "id": "1"}]))
        return self._say("It is 4." if "Lessons" in asked or "Checker:" in asked else "It is 5.")

    def _say(self, reply):
        return StreamingChatModel(replies=[reply])._result([])


class Judge(Clerk):
    """Rejects wrong sums, approves the rest."""

    def _result(self, messages):
        wrong = messages[-1].text.rsplit("assistant:", 1)[-1].count("5")
        return self._say('{"reason": "Count again.", "verdict": "reject"}' if wrong else "approve")


@tool
def send(to: str) -> str:
    """Send a letter."""
    return f"sent to {to}"


clerk = (
    create_cmat_graph(
        Clerk(replies=["?"]),
        tools=[send],
        checker=Judge(replies=["?"]),
        reflector=StreamingChatModel(replies=["Use your fingers."]),
        human=("checker",),
    )
    .compile(name="clerk")
    .with_config(callbacks=[TraceHandler(SQLTraceStore("sqlite:///traces.db"), run="clerk")])
)
