"""`ChromaStore` in a LangGraph app of your own: a node remembers what it is told, and finds it again by meaning.

Run it twice: the second run still knows what the first was told.
"""

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.runtime import Runtime

from cmat_graph.memory.chroma import ChromaStore


def listen(state: MessagesState, runtime: Runtime) -> dict:
    """Keep what was said, and answer with what comes nearest to it."""
    said = state["messages"][-1].text
    if said.endswith("?"):
        (nearest,) = runtime.store.search(("ann", "facts"), query=said, limit=1)
        return {"messages": [("ai", f"{nearest.value['text']} ({nearest.score:.2f})")]}
    runtime.store.put(("ann", "facts"), said, {"text": said})
    return {"messages": [("ai", "I see.")]}


with ChromaStore("memory/", fields=["text"]) as store:
    app = StateGraph(MessagesState).add_node(listen).add_edge(START, "listen").compile(store=store)
    for words in ("My car is red", "My garden is full of pears", "What grows in my garden?"):
        print(app.invoke({"messages": [("user", words)]})["messages"][-1].text)
