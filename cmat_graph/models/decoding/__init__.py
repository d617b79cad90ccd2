"""How rows decode together: the parts of `cmat_graph.models.engine`, for its use only."""
