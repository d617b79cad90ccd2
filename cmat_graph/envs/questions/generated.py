"""Arithmetic questions made by this project: `a+b*c+d-e*f`, six integers from 0 to 29."""

from __future__ import annotations

import random

from cmat_graph.envs.questions.records import Question, read_question

MOST = 29
"""The largest integer drawn; Multiagent Debate's upper bound, 30, is exclusive."""
TEXT = "What is the result of {expression}?"


def generate_questions(size: int, *, seed: int = 0) -> list[Question]:
    """Make arithmetic questions, half `train` and half `test`, none twice (Multiagent Finetuning, section 4.1).

    A question's split follows from its hash, so one that is `train` here is `train` with every other seed.

    Args:
        size: How many.
        seed: Same seed, same questions.

    Returns:
        Questions with their gold answers and worked steps.

    """
    rng = random.Random(f"arithmetic:{seed}")
    left = {"train": (size + 1) // 2, "test": size // 2}
    questions: dict[str, Question] = {}
    while any(left.values()):
        question = make_question([rng.randint(0, MOST) for _ in range(6)])
        if question.id not in questions and left[question.split]:
            left[question.split] -= 1
            questions[question.id] = question
    return list(questions.values())


def make_question(numbers: list[int]) -> Question:
    """Make the question for six integers."""
    a, b, c, d, e, f = numbers
    expression = f"{a}+{b}*{c}+{d}-{e}*{f}"
    record = {
        "id": f"arith-{'-'.join(map(str, numbers))}",
        "question": TEXT.format(expression=expression),
        "expression": expression,
        "answer": str(a + b * c + d - e * f),
    }
    return read_question(record)
