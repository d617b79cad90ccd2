"""`python -m cmat_graph.cli` is `cmat-graph`."""

from cmat_graph.cli import main

main()
