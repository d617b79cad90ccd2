"""Questions with one final answer: arithmetic, GSM8K, MATH, multiple choice."""

from __future__ import annotations

from cmat_graph.envs.questions.env import QuestionsEnv, QuestionSession
from cmat_graph.envs.questions.generated import generate_questions
from cmat_graph.envs.questions.reading import read_questions
from cmat_graph.envs.questions.records import Question

__all__ = ["Question", "QuestionSession", "QuestionsEnv", "generate_questions", "read_questions"]
