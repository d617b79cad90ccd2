"""Right actions, broken on purpose: each flaw with its name, what a checker says of it, and the action that mends it.

Made from gold actions, for teaching and measuring a checker. Nothing here runs anything: whether a broken action really
does something else is looked at where it can be run (`cmat_graph.drills`).
"""

from __future__ import annotations

from cmat_graph.flaws.flaw import Flaw
from cmat_graph.flaws.shell import SHELL_FLAWS, break_shell
from cmat_graph.flaws.shop import SHOP_FLAWS, ShopPage, break_shop
from cmat_graph.flaws.sql import SQL_FLAWS, break_sql
from cmat_graph.flaws.tokens import TableShape

__all__ = [
    "SHELL_FLAWS",
    "SHOP_FLAWS",
    "SQL_FLAWS",
    "Flaw",
    "ShopPage",
    "TableShape",
    "break_shell",
    "break_shop",
    "break_sql",
]
