"""Endless training chats for abacus: debates about `a+b*c+d-e*f` in every form in which `debate` asks.

All numbers come from gold arithmetic. The solutions that stand in prompts (an agent's own earlier one, and the
others') slip about as often as the model does; what carries loss is right, but for `rate` of the steps.
"""

from __future__ import annotations

import random
import string
from collections.abc import Iterator
from typing import NamedTuple

from chains import Chain, Problem, draw_problem, work_out

from cmat_graph.debate.prompts import prompt_pack

PACK = prompt_pack("arithmetic")
SLIPS = (0.02, 0.08, 0.12, 0.12, 0.2)
"""Share of wrong steps in solutions that stand in prompts; one of these for a chat."""
QUESTIONS = ("What is {}?", "Compute {}.", "How much is {}?", "Work out {}.", "{}")
FORMS = {
    "start": 34,
    "summarise": 14,
    "critic": 22,
    "critic_raw": 6,
    "cooperate": 5,
    "cooperate_raw": 3,
    "self_check": 4,
    "hint": 3,
    "rounds": 5,
    "rounds_raw": 2,
}
"""Forms of chats, and the percentage of each."""
IDENTIFIED = 0.1
"""Share of chats whose prompts say which agent is asked."""

Rng = random.Random


class Turn(NamedTuple):
    """One message, and whether the model learns to write it."""

    role: str
    content: str
    learn: bool


def phrases() -> list[str]:
    """Return what becomes one piece of the tokenizer each: the prompts' own words, and the solutions'."""
    templates = [
        PACK.start, PACK.critic, PACK.critic_raw, PACK.self_check, PACK.cooperate, PACK.cooperate_raw, PACK.hint,
        PACK.summarise, PACK.one_answer, PACK.identity, *QUESTIONS, "What is the result of {}?",
    ]  # fmt: skip
    literals = (literal for template in templates for literal, *_ in string.Formatter().parse(template))
    own = [
        "Products first.\n", "In parts.\n", "Plus terms first.\n", "Minus first.\n", "Difference of the products.\n",
        "Line by line.\n", "In short.\n", "\nAnswer: ", " times ", " is ", ". ", ", plus ", " plus ", ", minus ",
        "Agent ", ": ", ", ", "generator", "critic", "\n\n",
    ]  # fmt: skip
    return list(dict.fromkeys(text for text in [*literals, *own] if len(text) > 1))


def conversations(seed: int, rate: float = 0.0) -> Iterator[list[Turn]]:
    """Yield chats without end; the same seed yields the same ones.

    Args:
        seed: Where to begin.
        rate: Share of the steps in learned solutions that are wrong. Summaries are always right.

    """
    rng = random.Random(seed)
    names, shares = list(FORMS), list(FORMS.values())
    while True:
        yield _Chat(rng, rate).play(rng.choices(names, shares)[0])


class _Chat:
    """One chat about one problem."""

    def __init__(self, rng: Rng, rate: float) -> None:
        self.rng, self.rate = rng, rate
        self.slips = rng.choice(SLIPS)
        self.problem = draw_problem(rng)
        wording = "What is the result of {}?" if rng.random() < 0.8 else rng.choice(QUESTIONS)
        self.question = wording.format(self.problem.text)
        self.agents = rng.choice((2, 3, 3, 3, 3, 4, 5))
        self.index = rng.randint(1, self.agents)
        self.identified = rng.random() < IDENTIFIED

    def play(self, form: str) -> list[Turn]:
        if form == "summarise":
            others = self._others()
            return [
                Turn("user", PACK.summarise.format(answers=_fence(others)), False),
                Turn("assistant", summarise(others), True),
            ]
        if form == "hint":
            prompt = PACK.hint.format(question=self.question, answer=self.problem.value)
            return [Turn("user", prompt, False), self._solution()]
        turns = [Turn("user", self._named("generator", PACK.start.format(question=self.question)), False)]
        if form == "start":
            return [*turns, self._solution()]
        rounds = 2 if form.startswith("rounds") else 1
        asked = form.replace("rounds", "critic")
        for _ in range(rounds):
            turns += [self._earlier(), Turn("user", self._named("critic", self._critic(asked)), False)]
        return [*turns, self._solution()]

    def _critic(self, form: str) -> str:
        if form == "self_check":
            return PACK.self_check.format(question=self.question)
        others = self._others()
        if form.endswith("raw"):
            return str(getattr(PACK, form).format(question=self.question, answers=_fence(others)))
        return str(getattr(PACK, form).format(question=self.question, summary=summarise(others)))

    def _named(self, role: str, prompt: str) -> str:
        if not self.identified:
            return prompt
        return PACK.identity.format(role=role, index=self.index, agents=self.agents, prompt=prompt)

    def _others(self) -> list[Chain]:
        return [self._attempt() for _ in range(self.agents - 1)]

    def _attempt(self) -> Chain:
        return work_out(self.rng, self.problem, rate=self.slips)

    def _earlier(self) -> Turn:
        """An own earlier solution; a right one is as good to learn from as any."""
        chain = self._attempt()
        return Turn("assistant", chain.text, chain.right)

    def _solution(self) -> Turn:
        return Turn("assistant", work_out(self.rng, self.problem, rate=self.rate).text, True)


def _fence(chains: list[Chain]) -> str:
    return "\n\n".join(PACK.one_answer.format(answer=chain.text) for chain in chains)


def summarise(chains: list[Chain]) -> str:
    """Say in a line for each solution what it takes the products for, and what it comes to."""
    return "\n".join(
        f"Agent {i}: {chain.problem.a}+{chain.first}+{chain.problem.d}-{chain.second}={chain.answer}"
        for i, chain in enumerate(chains, 1)
    )


__all__ = ["Chain", "Problem", "Turn", "conversations", "phrases", "summarise"]
