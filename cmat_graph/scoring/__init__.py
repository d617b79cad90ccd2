"""Measures of a checker: how often its verdicts are right, how sure it may be of them, and how good its corrections.

`scoring.texts` needs sacrebleu and rouge-score: `pip install "cmat-graph[metrics]"`.
"""

from __future__ import annotations

from cmat_graph.scoring.execution import SQLTable, same_effect
from cmat_graph.scoring.verdicts import VerdictScore, brier_score, calibration_error, score_verdicts

__all__ = ["SQLTable", "VerdictScore", "brier_score", "calibration_error", "same_effect", "score_verdicts"]
