"""The nodes of the debate graph that ask no model, and its edges."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.config import get_stream_writer
from langgraph.types import Send

from cmat_graph.debate.asking import Asked, clean, refuse_unaskable
from cmat_graph.debate.judging import ask_person, record_choice
from cmat_graph.debate.playing import Played, criticising, openings, summarisings
from cmat_graph.debate.recording import Kept, as_debate, ending
from cmat_graph.debate.records import Debate
from cmat_graph.debate.rounds import Rules
from cmat_graph.debate.speaking import is_guest, recorder_of
from cmat_graph.debate.state import DebateState, Next, Proceedings, to_counted, to_said, to_turn, to_vote
from cmat_graph.errors import ConfigurationError
from cmat_graph.nodes.user import find_task
from cmat_graph.traces.recorder import to_message
from cmat_graph.types import Task


class Table:
    """What happens around the agents.

    Args:
        rules: What all are bound by.
        roles: Which model sits where.
        human: Whether a person decides.

    """

    def __init__(self, rules: Rules, roles: dict[str, str], *, human: bool) -> None:
        self.rules, self.roles, self.human = rules, roles, human
        self.told = {"debate": rules.told() | {"models": roles}}

    # -- nodes --------------------------------------------------------------------------------------------------

    def user(self, state: DebateState, config: RunnableConfig) -> DebateState:
        """Find the question, and begin the episode."""
        messages = state.get("messages", [])
        question, at = find_task(messages)
        if not question.strip():
            raise ConfigurationError('no question: invoke the graph with {"messages": [("user", "the question")]}')
        refuse_unaskable(question)
        question = clean(question)
        recorder = recorder_of(config, "")
        if recorder is not None and not is_guest(config):
            recorder.describe(self.told)
            recorder.assign(task=question, roles=self.roles)
        opened: Proceedings = {
            "episode": recorder.episode_id if recorder is not None and not is_guest(config) else uuid.uuid4().hex,
            "question": question,
            "context": [to_message(message) for message in messages[:at]],
            "settings": self.told["debate"],
            "round": 0,
            "turns": [],
            "summaries": [],
            "answer": "",
            "stopped": "running",
            "error": "",
        }
        _emit("question", question=question, roles=self.roles)
        return {"debate": opened}

    def moderator(self, state: DebateState) -> DebateState:
        """Count a round's answers, and decide where the debate goes on."""
        debate = state["debate"]
        turns = [to_turn(call) for call in debate["turns"]]
        last = [turn for turn in turns if turn.round == turns[-1].round]
        counted = self.rules.tally(debate["question"], last)
        leads: Next = "critics"
        if self.rules.ends(last, counted):
            leads = "vote"
        elif any(self.rules.summarising(last, i) for i in range(self.rules.agents)):
            leads = "summaries"
        _emit("round", round=last[-1].round, answers=[turn.answer for turn in last], share=counted.share)
        return {"debate": {"round": last[-1].round, "vote": to_counted(counted), "next": leads}}

    def vote(self, state: DebateState, config: RunnableConfig) -> DebateState:
        """Announce the consensus, or what a person chose in its place, and end the episode."""
        debate, calls = self._debate(state["debate"]), state["debate"]["turns"]
        recorder = recorder_of(config, debate.episode)
        if self.human:
            choice = ask_person(debate)
            debate = choice.take(debate, self.rules)
            record_choice(debate, choice, self.rules, recorder)
        end = ending(debate)
        if recorder is not None and not is_guest(config):
            recorder.finish(reward=None, **end)
        _emit("vote", answer=debate.answer, share=debate.vote.share, tied=debate.vote.tied)
        decided: Proceedings = {
            "answer": debate.answer,
            "by": "human" if self.human else "vote",
            "stopped_early": debate.stopped_early,
            "stopped": end["stopped"],
            "error": end["error"],
        }
        return {"messages": [_said(debate, calls, self.rules)], "debate": decided}

    # -- edges --------------------------------------------------------------------------------------------------

    def open(self, state: DebateState) -> list[Send]:
        """Ask all generators."""
        debate = state["debate"]
        return self._send(debate, openings(self.rules, debate["question"], debate["context"]))

    def go_on(self, state: DebateState) -> list[Send] | str:
        """Ask for the summaries, or the critics, or let the vote be counted."""
        debate = state["debate"]
        if debate["next"] == "vote":
            return "vote"
        turns = [to_turn(call) for call in debate["turns"]]
        last = [turn for turn in turns if turn.round == turns[-1].round]
        asked = summarisings(self.rules, debate["question"], last) if debate["next"] == "summaries" else []
        heard_of = {each.agent for each in asked}
        for i in range(self.rules.agents):
            if i not in heard_of:
                asked.append(criticising(self.rules, debate["question"], turns, i, None, debate["context"]))
        return self._send(debate, asked)

    def criticise(self, agent: int) -> Callable[[DebateState], list[Send]]:
        """Return the edge from an agent's summary to its critic.

        It sees the state as its step began, with the agent's own summary: nothing of the round that is under way.
        """

        def ask(state: DebateState) -> list[Send]:
            debate = state["debate"]
            turns = [to_turn(call) for call in debate["turns"] if call["round"] <= debate["round"]]
            made = [to_said(call) for call in debate["summaries"]]
            summary = next((e for e in made if e.agent == agent and e.round == debate["round"] + 1), None)
            asked = criticising(self.rules, debate["question"], turns, agent, summary, debate["context"])
            return self._send(debate, [asked])

        return ask

    def _send(self, debate: Proceedings, asked: Sequence[Asked]) -> list[Send]:
        return [Send(each.node, {**asdict(each), "episode": debate["episode"]}) for each in asked]

    def _debate(self, debate: Proceedings) -> Debate:
        turns = tuple(to_turn(call) for call in debate["turns"])
        counted = to_vote(debate["vote"])
        early = debate["round"] < self.rules.settings.rounds and self.rules.unanimous(counted)
        summaries = tuple(to_said(call) for call in debate["summaries"])
        played = Played(turns=turns, summaries=summaries, vote=counted, stopped_early=early)
        task = Task(id=debate["episode"], prompt=debate["question"])
        return as_debate(played, task, self.told, Kept(episode=debate["episode"]))


def _said(debate: Debate, calls: Sequence[Any], rules: Rules) -> AIMessage:
    """Return the message that the debate answers with: a reply of the last round that gave the consensus."""
    last = debate.round(debate.rounds)
    same = rules.kind.same
    agreeing = [turn for turn in last if turn.answer is not None and debate.answer and same(turn.answer, debate.answer)]
    agreeing.sort(key=lambda turn: turn.answer != debate.answer)  # first who said it as it stands
    spoken = agreeing or ([] if debate.answer else [turn for turn in last if not turn.error])
    told = {"answer": debate.answer, "share": debate.vote.share, "rounds": debate.rounds, "calls": debate.calls}
    if not spoken:
        return AIMessage(debate.answer, response_metadata={"debate": told})
    winner = spoken[0]
    id_ = next(c["id"] for c in calls if c["agent"] == winner.agent and c["round"] == winner.round)
    return AIMessage(winner.reply, id=id_ or None, response_metadata={"debate": told | {"agent": winner.node}})


def _emit(kind: str, **event: Any) -> None:
    """Send an event to whoever streams with `stream_mode="custom"`."""
    get_stream_writer()({"type": kind, **event})
