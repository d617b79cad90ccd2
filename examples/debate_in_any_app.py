"""Ask a society: three agents debate and vote, as a graph to stream, as one chat model, and over a whole question set.

Put any LangChain chat models in place of the scripted ones; of local ones, `TinyAgent.load("abacus", temperature=1.0)`,
one may play all, or each may bring an adapter of its own on the same base.
"""

from cmat_graph import Task
from cmat_graph.debate import SocietyChatModel, create_debate_graph, run_debates
from cmat_graph.testing import ScriptedChatModel

ann = ScriptedChatModel(replies=["6*7 is 42. Answer: 42", "It is 42. Answer: 42"])
bob = ScriptedChatModel(replies=["6*7 is 48. Answer: 48", "I took 6*8; it is 42. Answer: 42"])
eve = ScriptedChatModel(replies=["6+7=13. Answer: 13", "I stay with it. Answer: 13"])
notes = ScriptedChatModel(replies=["The others say 42, 48 and 13."])
agents = {"generators": [ann, bob, eve], "summariser": notes}

graph = create_debate_graph(**agents).compile()
for event in graph.stream({"messages": [("user", "What is 6*7?")]}, stream_mode="custom"):
    if event["type"] == "round":
        print(f"round {event['round']}: {event['answers']}, {event['share']:.0%} agree")

society = SocietyChatModel(debate=create_debate_graph(**agents))
reply = society.invoke("What is 6*7?")
print(reply.text, reply.response_metadata["debate"]["calls"], "calls")

for debate in run_debates([Task(id="1", prompt="What is 6*7?"), Task(id="2", prompt="And 7*6?")], **agents):
    print(debate.task.prompt, debate.answer, f"{debate.vote.share:.0%}")
