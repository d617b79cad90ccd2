"""`ChromaStore`, a LangGraph long-term store for any app: SQL is the record, Chroma an index that can be rebuilt.

store      the contract, opening and closing           records, tables   the items in SQL
searcher   which way a search goes                     exact             small namespaces, compared one by one
embedder   values to vectors                           index             large ones, through Chroma
filters    conditions on values and namespaces         opening           a store by names, for commands
"""

from __future__ import annotations

from cmat_graph.memory.chroma.store import ChromaStore, KeptItem

__all__ = ["ChromaStore", "KeptItem"]
