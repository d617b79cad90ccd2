"""The smallest graph: an assistant, a checker that sends the first answer back, and what each node did.

Put any LangChain chat model in place of the scripted ones.
"""

from cmat_graph import create_cmat_graph
from cmat_graph.testing import ScriptedChatModel

assistant = ScriptedChatModel(replies=["42", "6 x 7 = 42"])
checker = ScriptedChatModel(
    replies=['{"reason": "No working shown.", "verdict": "revise", "hint": "Show it."}', "approve"]
)

graph = create_cmat_graph(assistant, checker=checker).compile()

for update in graph.stream({"messages": [("user", "What is six times seven?")]}, stream_mode="updates"):
    for node, change in update.items():
        verdict = change["cmat"].get("verdict") or {}
        print(f"{node:10} {verdict.get('decision', '')} {verdict.get('reason', '')}".rstrip())
    result = change
print(result["messages"][-1].text)
