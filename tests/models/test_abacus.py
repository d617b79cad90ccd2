"""The arithmetic base that ships with the package: it answers what debates ask, right often enough and not always."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cmat_graph.adapters import AdapterRegistry
from cmat_graph.answers import answer_kind
from cmat_graph.bases import BUNDLED
from cmat_graph.debate.many import run_debates
from cmat_graph.debate.prompts import prompt_pack
from cmat_graph.debate.rounds import DebateSettings
from cmat_graph.envs import load_env
from cmat_graph.models.chat_model import TinyAgent

PACK = prompt_pack("arithmetic")
NUMBER = answer_kind("number")
QUESTION = "What is the result of 20+15*15+10-26*0?"


@pytest.fixture(scope="module")
def abacus() -> TinyAgent:
    return TinyAgent.load("abacus", seed=1)


@pytest.fixture(scope="module")
def questions():
    env = load_env("questions", size=80, seed=41)
    return env, env.tasks("test")


def ended(reply) -> bool:
    return reply.response_metadata["finish_reason"] == "stop"


def test_it_is_small_enough_to_ship():
    sizes = {file.name: file.stat().st_size for file in BUNDLED["abacus"].iterdir() if file.is_file()}
    assert {"README.md", "TRAINING.json", "chat_template.jinja", "config.json", "tokenizer.json"} < set(sizes)
    assert sizes["model.safetensors"] <= 3_000_000
    training = json.loads((BUNDLED["abacus"] / "TRAINING.json").read_text())
    assert training["tokens"] > 0
    assert not [key for key in training if "path" in key or "out" in key]


def test_a_debate_of_five_fits_its_window(abacus):
    solution = {"role": "assistant", "content": "\n".join(["29*29=290+261=551"] * 6) + "\nAnswer: 551"}
    answers = "\n\n".join([PACK.one_answer.format(answer=solution["content"])] * 4)
    critic = {"role": "user", "content": PACK.critic_raw.format(question=QUESTION, answers=answers)}
    chat = [{"role": "user", "content": PACK.start.format(question=QUESTION)}, solution, critic]
    assert len(abacus.engine.encode(chat)) < abacus.engine.window - 128


def test_digits_are_single_pieces(abacus):
    pieces = [abacus.engine.tokenizer.decode([token]) for token in abacus.get_token_ids("1290+37=1327")]
    assert pieces == list("1290+37=1327")


def test_a_start_is_answered_in_the_form(abacus):
    reply = abacus.invoke(PACK.start.format(question=QUESTION))
    assert ended(reply)
    assert reply.text.count("\nAnswer: ") == 1
    assert NUMBER.extract(reply.text) is not None
    assert reply.text.endswith(f"Answer: {NUMBER.extract(reply.text)}")


@pytest.mark.parametrize("name", ["critic", "critic_raw", "cooperate", "cooperate_raw", "self_check"])
def test_a_critic_answers_and_ends_by_itself(abacus, name):
    start = PACK.start.format(question=QUESTION)
    own = "In short.\n20+225+10-0=245\nAnswer: 245"
    other = "Products first.\n15*15=225\n26*0=0\n20+225=245\n245+10=255\n255-0=255\nAnswer: 255"
    told = {
        "question": QUESTION,
        "summary": "Agent 1: 20+225+10-0=255\nAgent 2: 20+225+10-0=255",
        "answers": "\n\n".join([PACK.one_answer.format(answer=other)] * 2),
    }
    prompt = getattr(PACK, name).format(**told)
    reply = abacus.invoke([("user", start), ("assistant", own), ("user", prompt)])
    assert ended(reply)
    assert "\nAnswer: " in reply.text
    assert NUMBER.extract(reply.text) is not None


def test_it_sums_up_each_solution_in_a_line(abacus):
    solutions = [
        "In short.\n20+225+10-0=255\nAnswer: 255",
        "Products first.\n15*15=225\n26*0=0\n20+225=245\n245+10=255\n255-0=255\nAnswer: 255",
    ]
    answers = "\n\n".join(PACK.one_answer.format(answer=text) for text in solutions)
    reply = abacus.invoke(PACK.summarise.format(answers=answers))
    assert ended(reply)
    lines = reply.text.splitlines()
    assert [line.split(":")[0] for line in lines] == ["Agent 1", "Agent 2"]
    assert all(line.endswith("=255") for line in lines)


def test_it_is_right_often_and_not_always(questions):
    env, tasks = questions
    assert len(tasks) == 40
    sampled = TinyAgent.load("abacus", temperature=1.0, top_p=0.9)
    debates = run_debates(tasks, generators=sampled, agents=1, env=env, score=True, settings=DebateSettings(rounds=1))
    assert sum(each.answer is None for each in debates) <= 2
    assert 0.25 <= sum(each.reward or 0 for each in debates) / len(tasks) <= 0.8


def test_samples_differ_and_repeat_by_their_seed(abacus):
    drawn = abacus.model_copy(update={"temperature": 1.0, "top_p": 0.9})
    prompt = PACK.start.format(question=QUESTION)
    texts = [drawn.invoke(prompt, seed=seed).text for seed in range(8)]
    assert len({text.splitlines()[0] for text in texts}) >= 3
    assert drawn.invoke(prompt, seed=3).text == texts[3]


@pytest.mark.slow
def test_what_a_debate_leaves_trains_an_adapter_on_it(questions, traces, tmp_path):
    """From a recorded debate to an agent's dataset, to a LoRA, and back into a seat."""
    from cmat_graph.tuning.debates import debate_sets
    from cmat_graph.tuning.distill import distill
    from cmat_graph.tuning.settings import TrainSettings

    env, tasks = questions
    sampled = TinyAgent.load("abacus", temperature=1.0, top_p=0.9)
    told = DebateSettings(rounds=2, seed=5)
    run_debates(env.tasks("train"), generators=sampled, agents=3, settings=told, traces=traces, run="label")
    debate_sets(traces, tmp_path / "sets", run="label", validation_share=0.0)
    registry = AdapterRegistry(tmp_path / "adapters")
    losses: list[float] = []
    card = distill(
        None,
        registry,
        node="generator-0",
        base="abacus",
        dataset=tmp_path / "sets" / "generator-0",
        settings=TrainSettings(max_steps=12, batch_size=8, learning_rate=3e-3),
        progress=lambda step, steps, loss: losses.append(loss),
    )
    assert card.base == "abacus"
    assert card.loss[-1] < card.loss[0]
    tuned = TinyAgent.load(card, adapters=registry, temperature=1.0, top_p=0.9)
    played = run_debates(tasks[:4], generators=[tuned, sampled], agents=2, settings=replace(told, seed=6))
    assert {turn.adapter for each in played for turn in each.turns} == {card.id, ""}
    assert sum(turn.answer is not None for each in played for turn in each.turns) >= 12
