"""Exercises for the checker: right and broken actions of gold tasks, asked as the graph asks, with the right verdicts.

`write_drills` makes a dataset of them that `cmat-graph distill --dataset DIR --node checker` trains on; `check_drills`
and `score_checked` measure a checker with them.
"""

from __future__ import annotations

from cmat_graph.drills.asking import answer_of, ask_checker, read_answer
from cmat_graph.drills.database import database_drills
from cmat_graph.drills.drill import Drill
from cmat_graph.drills.measuring import Checked, CheckScore, check_drills, score_checked
from cmat_graph.drills.shell import shell_drills
from cmat_graph.drills.shell_tasks import generate_shell_tasks
from cmat_graph.drills.shop import read_shop, shop_drills
from cmat_graph.drills.writing import to_example, write_drills

__all__ = [
    "CheckScore",
    "Checked",
    "Drill",
    "answer_of",
    "ask_checker",
    "check_drills",
    "database_drills",
    "generate_shell_tasks",
    "read_answer",
    "read_shop",
    "score_checked",
    "shell_drills",
    "shop_drills",
    "to_example",
    "write_drills",
]
