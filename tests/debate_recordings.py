"""Debates written by hand into a trace database, as they are recorded, so that every set can be counted on paper."""

from __future__ import annotations

import hashlib

from cmat_graph.types import Step, Task

ASK = "{question}\nEnd with `Answer:` and the number."


def say(agent, answer, round_=1):
    """Word a reply so that each agent's differs, whatever it answers."""
    if answer is None:
        return f"Agent {'ABC'[agent]} cannot say."  # without a digit, which would be an answer
    return f"Agent {'ABC'[agent]}, round {round_}: I add up. Answer: {answer}"


def summary_for(agent, answers):
    """Word what a critic is shown."""
    return "; ".join(f"agent {other} says {given}" for other, given in enumerate(answers) if other != agent)


def record(
    traces, question, *rounds, consensus, run="label", split="train", task_id="", stopped="ended", reward=None,
    failed=(), human=None, settings=None, identity=False, env="questions",
):  # fmt: skip
    """Write one debate.

    Args:
        traces: Where to.
        question: Its text; its id is made of it where none is given.
        rounds: The answers of each round, by agent; None for a reply without one.
        consensus: What the vote chose.
        failed: (agent, round) of the calls that failed.
        human: For (agent, round): whether a person called the reply right.

    """
    task = Task(id=task_id or f"id of {question}", prompt=question, split=split)
    episode = hashlib.md5(f"{run}{task.id}{rounds}".encode()).hexdigest()
    told = {"agents": len(rounds[0]), "rounds": len(rounds), "kind": "number", "pack": "arithmetic@1"}
    traces.start_episode(
        episode, env=env, task=task, run=run, settings={"debate": told} if settings is None else settings
    )
    chats = {agent: [] for agent in range(len(rounds[0]))}
    index = 0
    for number, answers in enumerate(rounds, 1):
        for agent, answer in enumerate(answers):
            asked = ASK.format(question=question)
            if number > 1:
                shown = summary_for(agent, rounds[number - 2])
                summary = [{"role": "user", "content": f"Sum up: {shown}"}]
                step = Step(index=index, attempt=number, node=f"summary-{agent}", messages=summary, completion=shown)
                traces.record_step(episode, step)
                index += 1
                asked = f"Others: {shown}\nSolve again: {question}"
            if identity:
                asked = f"You are agent {agent}.\n{asked}"
            chats[agent].append({"role": "user", "content": asked})
            broke = (agent, number) in failed
            reply = "" if broke else say(agent, answer, number)
            step = Step(
                key=hashlib.md5(f"{episode}{index}".encode()).hexdigest(),
                index=index,
                attempt=number,
                node=f"{'critic' if number > 1 else 'generator'}-{agent}",
                messages=list(chats[agent]),
                completion=reply,
                told={"error": "ServerError: away"} if broke else {},
            )
            traces.record_step(episode, step)
            if human and (agent, number) in human:
                right = human[agent, number]
                traces.judge_step(step.key, verdict=verdict(right))
            index += 1
            if broke:
                chats[agent].pop()
            else:
                chats[agent].append({"role": "assistant", "content": reply})
    if stopped != "running":
        traces.finish_episode(episode, reward=reward, stopped=stopped, attempts=len(rounds), answer=consensus, error="")
    traces.flush()
    return task


def verdict(right):
    """A person's word on a reply."""
    return {
        "phase": "after", "decision": "approve" if right else "reject", "passed": right, "score": float(right),
        "reason": "", "hint": "", "category": "ok" if right else "wrong", "source": "human",
    }  # fmt: skip
