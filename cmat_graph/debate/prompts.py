"""What agents of a debate are told, for each kind of question. The semantics are the papers', the words are ours.

Multiagent Debate and Multiagent Finetuning give no system prompt; neither does this. A template is filled by
`str.format`, so braces of its own are doubled; what is filled in may hold any.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmat_graph.errors import ConfigurationError
from cmat_graph.types import Env, Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptPack:
    """The prompts of one kind of question."""

    name: str
    kind: str
    """How its final answers are read and compared: a name of `answers.KINDS`."""
    start: str
    """Asks a generator. Fields: `{question}`."""
    critic: str
    """Asks a critic, with the summary of the others' solutions. Fields: `{question}`, `{summary}`."""
    critic_raw: str
    """The same with the solutions themselves. Fields: `{question}`, `{answers}`."""
    self_check: str
    """Asks an agent that has no others. Fields: `{question}`."""
    cooperate: str
    """Asks to join the solutions rather than to criticise them. Fields: `{question}`, `{summary}`."""
    cooperate_raw: str
    """The same with the solutions themselves. Fields: `{question}`, `{answers}`."""
    hint: str
    """Asks again with the true answer, for STaR. Fields: `{question}`, `{answer}`."""
    summarise: str = (
        "These are other agents' solutions of one problem.\n\n{answers}\n\n"
        "Sum up each agent's opinion in a line of its own, with its reasoning."
    )
    """Asks for the summary; the question is not in it. Fields: `{answers}`."""
    one_answer: str = "One agent's solution:\n```\n{answer}\n```"
    """How one solution stands among others; its fence is made longer than those in it. Fields: `{answer}`."""
    identity: str = "You are {role} agent {index} of {agents}.\n{prompt}"
    """Tells an agent which it is. Fields: `{role}`, `{index}`, `{agents}`, `{prompt}`."""
    version: int = 1
    """Raised when the words change."""


_SUMMED = "What other agents say:\n{summary}\n\n"
_RAW = "Other agents' solutions:\n\n{answers}\n\n"
_EXAMINE = "Take this as advice, examine it and your own steps, and solve the problem again: {question}\n"
_JOIN = "Join what is best in theirs and yours to one solution: {question}\n"
_CHECK = "Check your steps once more, and solve the problem again: {question}\n"
_HINT = "{question}\nThe right answer is {answer}. Show the steps that lead to it.\n"


def _pack(name: str, kind: str, end: str, *, start: str = "{question}\n") -> PromptPack:
    return PromptPack(
        name=name,
        kind=kind,
        start=start + end,
        critic=_SUMMED + _EXAMINE + end,
        critic_raw=_RAW + _EXAMINE + end,
        self_check=_CHECK + end,
        cooperate=_SUMMED + _JOIN + end,
        cooperate_raw=_RAW + _JOIN + end,
        hint=_HINT + end,
    )


PACKS = {
    pack.name: pack
    for pack in (
        _pack("arithmetic", "number", "Show your steps, and end with `Answer:` and the number."),
        _pack(
            "gsm8k",
            "number",
            "Explain your reasoning. End with one number as the final answer, in the form \\boxed{{answer}}.",
        ),
        _pack(
            "math",
            "boxed",
            "Give your reasoning in bullet points, and put one final answer in the form \\boxed{{answer}} at the end.",
            start="Solve this problem: {question}\n",
        ),
        _pack("choice", "letter", "Explain your answer, and end with the letter of one option in round brackets: (X)."),
        _pack("open", "text", "Explain your reasoning in short, and end with `Answer:` and the answer."),
        _pack(
            "verdict",
            "verdict",
            "Answer in the form that was asked for, with the verdict and its reason.",
        ),
    )
}


_NUMBERS = {"number", "integer", "boxed"}
"""Kinds that are read out of each other's form: `\\boxed{42}` is a number, too."""


def fitting_pack(env: Env, tasks: Sequence[Task], name: str = "") -> str:
    """Return the name of the prompts for some questions: those that are named, or those of the questions' family.

    Raises:
        ConfigurationError: There are none, or the answers that they ask for are not of the questions' kind.

    """
    family = str(getattr(env, "family", ""))
    if not name and family == "mixed":
        raise ConfigurationError("these questions are of several kinds; ask each kind from a file of its own")
    name = name or family
    if name not in PACKS:
        raise ConfigurationError(f"no prompts for questions of the kind {name or env.name!r}; choose some: --pack "
                                 f"{'|'.join(PACKS)}")  # fmt: skip
    kind_of = getattr(env, "kind_of", None)
    if kind_of is None:
        return name
    mine = PACKS[name].kind
    other = [task for task in tasks if kind_of(task) != mine and not {kind_of(task), mine} <= _NUMBERS]
    if other:
        raise ConfigurationError(
            f"{len(other)} of {len(tasks)} questions, such as {other[0].id!r}, have answers of the kind "
            f"{kind_of(other[0])!r}, and the prompts {name!r} ask for a {mine}; leave them out, or choose other prompts"
        )
    return name


def prompt_pack(name: str) -> PromptPack:
    """Return the prompts of a kind of question by their name.

    Raises:
        ConfigurationError: There are none of this name.

    """
    if name not in PACKS:
        raise ConfigurationError(f"no prompts {name!r}; there are: {', '.join(PACKS)}")
    return PACKS[name]
