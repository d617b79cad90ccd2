"""Final answers: find them in replies, compare them, vote on them. No environment knows about another here."""

from __future__ import annotations

from cmat_graph.answers.kinds import KINDS, AnswerKind, answer_kind
from cmat_graph.answers.parsing import parse_answer, same_answer
from cmat_graph.answers.votes import Vote, vote

__all__ = ["KINDS", "AnswerKind", "Vote", "answer_kind", "parse_answer", "same_answer", "vote"]
