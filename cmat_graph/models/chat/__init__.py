"""How LangChain's messages and tools become a model's prompt, and its reply a message; for `cmat_graph.models`."""
