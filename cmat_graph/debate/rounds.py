"""The rules of a debate as pure functions: from what was said to what is asked next, and when it ends.

Multiagent Finetuning (Subramaniam et al. 2025), section 2 and Algorithm 1. Both ways to play, the graph and the batches
of `run_debates`, ask only what these functions say, so they cannot differ.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cmat_graph.answers import AnswerKind, Vote, answer_kind, vote
from cmat_graph.debate.prompts import PACKS, PromptPack, prompt_pack
from cmat_graph.debate.records import Said, Turn
from cmat_graph.errors import ConfigurationError
from cmat_graph.types import Message

Mode = Literal["critique", "cooperate", "identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DebateSettings:
    """How a debate goes."""

    rounds: int = 2
    """With the generators' round: 2 is one round of generators and one of critics."""
    summarise: bool = True
    """Whether critics are shown a summary of the others' solutions; otherwise the solutions themselves."""
    mode: Mode = "critique"
    """`critique` examines the others' solutions, `cooperate` joins them with one's own, `identity` is `critique` with
    prompts that tell each agent which it is."""
    stop_when_unanimous: bool = False
    """End after a round in which all agents gave the same answer."""
    most_solutions: int = 5
    """Without summaries: of more solutions than these a critic is shown so many, drawn anew for each."""
    seed: int = 0
    """Draws of ties, orders and replies."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.most_solutions < 1:
            raise ConfigurationError("a debate has at least one round, and most_solutions is at least 1")
        if self.mode not in get_args(Mode):
            raise ConfigurationError(f"no mode {self.mode!r} of a debate; there are: {', '.join(get_args(Mode))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What every agent of a debate is bound by: settings, prompts, and how many there are."""

    settings: DebateSettings
    pack: PromptPack
    agents: int

    @classmethod
    def of(cls, settings: DebateSettings, pack: str | PromptPack, agents: int) -> Rules:
        """Put them together; prompts may be named.

        Raises:
            ConfigurationError: There are no agents, or no prompts of this name.

        """
        if agents < 1:
            raise ConfigurationError(f"a debate needs at least one agent, not {agents}")
        return cls(settings=settings, pack=prompt_pack(pack) if isinstance(pack, str) else pack, agents=agents)

    @property
    def kind(self) -> AnswerKind:
        """How answers are read and compared."""
        return answer_kind(self.pack.kind)

    def told(self) -> dict[str, Any]:
        """Say how it is played, as it is kept with an episode."""
        settings = self.settings
        return {
            "agents": self.agents,
            "rounds": settings.rounds,
            "summarise": settings.summarise,
            "mode": settings.mode,
            "stop_when_unanimous": settings.stop_when_unanimous,
            "most_solutions": settings.most_solutions,
            "seed": settings.seed,
            "pack": _label(self.pack),
            "kind": self.pack.kind,
        }

    # -- what is asked ------------------------------------------------------------------------------------------

    def opening(self, question: str, agent: int, context: Sequence[Message] = ()) -> list[Message]:
        """Ask a generator.

        Args:
            question: What the debate is about.
            agent: Who is asked, from 0.
            context: What was said before the question.

        """
        prompt = self.pack.start.format(question=question)
        return [*context, {"role": "user", "content": self._named("generator", agent, prompt)}]

    def summarising(self, last: Sequence[Turn], agent: int) -> list[Message] | None:
        """Ask for a summary of what the others said in the last round, for one agent; None where there is none to make.

        The agent's own solution is never in it, nor is the question.
        """
        others = _others(last, agent)
        if not self.settings.summarise or not others:
            return None
        return [{"role": "user", "content": self.pack.summarise.format(answers=self._listed(others))}]

    def criticising(
        self,
        question: str,
        turns: Sequence[Turn],
        agent: int,
        summary: Said | None,
        context: Sequence[Message] = (),
    ) -> tuple[list[Message], str]:
        """Ask a critic, in its own chat: what it was asked and said before, then the others' solutions.

        Where a summary failed, it is shown the solutions themselves; where nobody else could speak, it checks its own.
        A turn of its own that failed is not in its chat.

        Args:
            question: What the debate is about.
            turns: All earlier rounds, complete.
            agent: Who is asked, from 0.
            summary: Of the others' solutions of the last round, made for this agent.
            context: What was said before the question.

        Returns:
            The prompt, and the summary that stands in it.

        """
        before = turns[-1].round
        mine = [turn for turn in turns if turn.agent == agent and not turn.error]
        chat = list(context)
        if mine:
            chat = [*mine[-1].messages, {"role": "assistant", "content": mine[-1].reply}]
        others = _others([turn for turn in turns if turn.round == before], agent)
        shown = summary.reply if summary is not None and not summary.error and others else ""
        joins, pack = self.settings.mode == "cooperate", self.pack
        if shown.strip():
            prompt = (pack.cooperate if joins else pack.critic).format(question=question, summary=shown)
        elif others:
            drawn = self._drawn(others, question, before + 1, agent)
            prompt = (pack.cooperate_raw if joins else pack.critic_raw).format(
                question=question, answers=self._listed(drawn)
            )
            shown = ""
        else:
            prompt = (pack.self_check if mine else pack.start).format(question=question)
            shown = ""
        return [*chat, {"role": "user", "content": self._named("critic", agent, prompt)}], shown

    def _named(self, role: str, agent: int, prompt: str) -> str:
        if self.settings.mode != "identity":
            return prompt
        return self.pack.identity.format(role=role, index=agent + 1, agents=self.agents, prompt=prompt)

    def _drawn(self, others: Sequence[Turn], question: str, round_: int, agent: int) -> list[Turn]:
        drawn = list(others)
        random.Random(f"{self.settings.seed}|{round_}|{agent}|{question}").shuffle(drawn)
        return drawn[: self.settings.most_solutions]

    def _listed(self, turns: Sequence[Turn]) -> str:
        return "\n\n".join(_fenced(self.pack.one_answer, turn.reply) for turn in turns)

    # -- what came of it ----------------------------------------------------------------------------------------

    def read(self, reply: str) -> str | None:
        """Return the final answer in a reply; None where there is none."""
        return self.kind.extract(reply)

    def tally(self, question: str, last: Sequence[Turn]) -> Vote:
        """Count the answers of a round; what cannot be read never counts, ties are drawn by the seed."""
        return vote([turn.answer for turn in last], self.kind, seed=f"{self.settings.seed}|{question}")

    def ends(self, last: Sequence[Turn], counted: Vote) -> bool:
        """Tell whether the debate is over after a round."""
        if last[-1].round >= self.settings.rounds or all(turn.error for turn in last):
            return True
        return self.settings.stop_when_unanimous and self.unanimous(counted)

    def unanimous(self, counted: Vote) -> bool:
        """Tell whether all agents gave the same answer; one that cannot be read agrees with nobody."""
        return len(counted.winners) == self.agents

    def seed_of(self, question: str, node: str, round_: int) -> int:
        """Return the seed of one call: it depends on nothing but what is asked of whom."""
        told = f"{self.settings.seed}|{node}|{round_}|{question}"
        return int.from_bytes(hashlib.sha256(told.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def _label(pack: PromptPack) -> str:
    """Name prompts with their version; those of your own with a hash of their words, too."""
    own = "" if PACKS.get(pack.name) == pack else f"+{hashlib.sha256(repr(pack).encode()).hexdigest()[:8]}"
    return f"{pack.name}@{pack.version}{own}"


def _fenced(template: str, reply: str) -> str:
    """Write a solution as one of several; its fence is longer than any of its own, or it could pose as two."""
    longest = max(map(len, re.findall("`+", reply)), default=0)
    return template.replace("```", "`" * max(3, longest + 1)).format(answer=reply)


def _others(last: Sequence[Turn], agent: int) -> list[Turn]:
    return [turn for turn in last if turn.agent != agent and not turn.error and turn.reply.strip()]
