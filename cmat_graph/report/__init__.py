"""How results are shown: estimates with their standard error, tables, plots (extra `report`), one page of HTML."""

from __future__ import annotations

from cmat_graph.report.estimates import Estimate, estimate
from cmat_graph.report.page import write_page
from cmat_graph.report.tables import Table

__all__ = ["Estimate", "Table", "estimate", "write_page"]
