"""Questions with one final answer as an environment: one reply, one answer, right or wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from cmat_graph.answers import AnswerKind, answer_kind
from cmat_graph.envs.questions.records import Question
from cmat_graph.errors import ConfigurationError
from cmat_graph.types import Finding, Observation, Task

FORMS: Mapping[str, str] = {
    "number": "`Answer:` and the number",
    "boxed": "the answer in the form \\boxed{...}",
    "letter": "the letter of one option in round brackets, such as (A)",
    "text": "`Answer:` and the answer alone",
}
"""How a reply ends, by the kind of the answer."""
BARE_CHARS = 200
"""A text of one line up to this long may be an answer without the reasoning around it."""


class QuestionsEnv:
    """Questions with one final answer; an `Env`.

    Args:
        questions: The questions, with their gold.

    """

    name = "questions"
    max_rounds = 1

    def __init__(self, questions: Iterable[Question]) -> None:
        self._questions = {question.id: question for question in questions}
        if not self._questions:
            raise ConfigurationError("there are no questions; give a task file with some, or 'builtin'")
        kinds = dict.fromkeys(question.kind for question in self._questions.values())
        forms = "; or ".join(FORMS[kind] for kind in kinds)
        self.rules = f"The task is a question. Reply once: your reasoning in short, and at the end {forms}."
        """What the assistant is told."""

    @property
    def family(self) -> str:
        """`arithmetic`, `gsm8k`, `math`, `choice` or `open`; `mixed` where the questions are of several."""
        families = {question.family for question in self._questions.values()}
        return families.pop() if len(families) == 1 else "mixed"

    def kind_of(self, task: Task) -> str:
        """Return the name of the kind of a task's answer (see `cmat_graph.answers.answer_kind`)."""
        return self._question(task).kind

    def tasks(self, split: str | None = None, *, categories: Collection[str] | None = None) -> list[Task]:
        """Return the tasks of one split, or all of them.

        Args:
            split: `train`, `test`, or None for all.
            categories: Only these, such as MATH's `Level 1`, `Level 2`, `Level 3`; None takes all.

        Raises:
            ConfigurationError: No task is of that split and category; the message names what there is.

        """
        found = [
            question.task
            for question in self._questions.values()
            if split in (None, question.split) and (categories is None or question.category in categories)
        ]
        if not found:
            splits = ", ".join(sorted({question.split for question in self._questions.values()}))
            known = ", ".join(sorted({question.category for question in self._questions.values()}))
            raise ConfigurationError(f"no questions in split {split!r}; there are splits {splits}; categories {known}")
        return found

    def open(self, task: Task) -> QuestionSession:
        """Start a session for a task of this environment."""
        return QuestionSession(self._question(task))

    def demonstrations(self) -> dict[str, list[str]]:
        """Map each prompt to its gold reply: the worked solution, and the answer in the form that `rules` asks for."""
        return {question.prompt: [demonstrate(question)] for question in self._questions.values()}

    def metric(self, rewards: Iterable[tuple[Task, float]]) -> dict[str, float]:
        """Return the accuracy (`main`), and that of each category and, for MATH, each type of problem."""
        groups: dict[str, list[float]] = defaultdict(list)
        everything: list[float] = []
        for task, reward in rewards:
            question = self._question(task)
            everything.append(reward)
            for group in dict.fromkeys((question.category, question.subject)):
                if group:
                    groups[group].append(reward)
        means = {name: sum(values) / len(values) for name, values in sorted(groups.items())}
        return {"main": sum(everything) / len(everything) if everything else 0.0, **means}

    def _question(self, task: Task) -> Question:
        if task.id not in self._questions:
            raise ConfigurationError(f"no question {task.id!r} here; take tasks from this environment's tasks()")
        return self._questions[task.id]


class QuestionSession:
    """One question being answered; a `Session`."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._answer: str | None = None

    def reset(self) -> None:
        """Forget the answer."""
        self._answer = None

    def step(self, action: str) -> Observation:
        """Take a reply, or a bare answer; the last one counts."""
        self._answer = read_answer(action, answer_kind(self._question.kind))
        if self._answer is None:
            return Observation(text=f"Error: the reply holds no answer that can be read. {self._hint}", error=True)
        return Observation(text="", done=True)

    def probe(self, action: str) -> Finding | None:
        """Look whether a reply holds an answer in the form that `rules` asks for."""
        if answer_kind(self._question.kind).extract(action) is not None:
            return None
        return Finding(text="The reply holds no answer that can be read.", hint=self._hint, category="format")

    def score(self) -> float:
        """Return 1 where the answer is equivalent to the gold, else 0; what cannot be read is wrong."""
        kind = answer_kind(self._question.kind)
        return float(self._answer is not None and kind.same(self._answer, self._question.gold))

    def close(self) -> None:
        """Hold nothing, so give nothing back."""

    @property
    def _hint(self) -> str:
        return f"End with {FORMS[self._question.kind]}."


def read_answer(text: str, kind: AnswerKind) -> str | None:
    r"""Return the answer in a reply; a text of one short line may be the answer itself, as a vote gives it.

    Only MATH's answers need that: the others are found in a reply and alone by the same rules.
    """
    answer = kind.extract(text)
    bare = text.strip()
    if answer is None and kind.name == "boxed" and 0 < len(bare) <= BARE_CHARS and "\n" not in bare:
        return kind.extract(f"\\boxed{{{bare}}}")
    return answer


def demonstrate(question: Question) -> str:
    """Write the gold reply of a question: the worked solution where it leads to the gold, and the answer."""
    kind = answer_kind(question.kind)
    if kind.name == "boxed" and kind.extract(question.worked) == question.gold:
        return question.worked
    end = {"boxed": f"\\boxed{{{question.gold}}}", "letter": f"({question.gold})"}.get(
        kind.name, f"Answer: {question.gold}"
    )
    reply = f"{question.worked}\n{end}".strip()
    return reply if kind.extract(reply) == question.gold else end
