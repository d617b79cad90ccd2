"""Likelihood, divergence and dissimilarity beside the same definitions, worked out one reply at a time."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from itertools import permutations

import pytest
import torch
from debate_recordings import record
from langchain_core.embeddings import Embeddings
from tiny_society import Alone, divergence, make_adapter, make_base

from cmat_graph.diversity import forcing, measure_diversity
from cmat_graph.diversity.forcing import Forcer, token_kl, token_nll
from cmat_graph.errors import (
    AdapterMismatchError,
    AdapterNotFoundError,
    ConfigurationError,
    UnsupportedAdapterError,
)
from cmat_graph.traces import SQLTraceStore

CLOSE = {"rel": 2e-4, "abs": 1e-6}


@pytest.fixture(scope="module")
def society(tmp_path_factory):
    """Two agents with critics of their own, and three debates."""
    root = tmp_path_factory.mktemp("society")
    base = make_base(root / "base")
    generators = [make_adapter(root / "adapters", base, f"generator-{n}", 10 + n) for n in range(2)]
    critics = [make_adapter(root / "adapters", base, f"critic-{n}", 20 + n) for n in range(2)]
    traces = SQLTraceStore("sqlite://")
    record(traces, "1+1", ["2", "3"], ["2", "2"], consensus="2")
    record(traces, "20+2", ["22", "5"], ["22.0", "3000"], consensus="22")
    record(traces, "3+3", ["6", "6"], ["6", "6.000"], consensus="6")
    return base, generators, critics, traces


@pytest.fixture(scope="module")
def measured(society):
    base, generators, critics, traces = society
    return measure_diversity(traces, base=str(base), generators=generators, critics=critics)


@pytest.fixture(scope="module")
def alone(society):
    """Every model by itself."""
    base, generators, critics, _ = society
    return {
        "generator": [Alone(base, card) for card in generators],
        "critic": [Alone(base, card) for card in critics],
        "bare": Alone(base),
    }


def steps(traces, role):
    """Return (agent, prompt, reply) of each debate."""
    return [
        [(int(s.node[-1]), s.messages, s.completion) for s in episode.steps if s.node.startswith(role)]
        for episode in traces.episodes()
    ]


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def test_nll_is_that_of_the_others_replies_under_the_critic_that_is_held_out(society, alone, measured):
    traces, slow = society[-1], alone["critic"]
    by_question = [
        mean(slow[1 - agent].nll(prompt, reply) for agent, prompt, reply in debate)
        for debate in steps(traces, "critic")
    ]
    assert measured.nll.value == pytest.approx(mean(by_question), **CLOSE)
    assert measured.nll.questions == 3
    held_out = mean(slow[0].nll(*debate[1][1:]) for debate in steps(traces, "critic"))
    assert measured.nll.each["0|1"] == pytest.approx(held_out, **CLOSE)


@pytest.mark.parametrize("role", ["generator", "critic"])
def test_kl_between_agents_is_on_the_tokens_of_the_first(society, alone, measured, role):
    traces, slow = society[-1], alone[role]
    found = measured.kl_generators if role == "generator" else measured.kl_critics
    by_question = [
        mean(slow[agent].kl(slow[1 - agent], prompt, reply) for agent, prompt, reply in debate)
        for debate in steps(traces, role)
    ]
    assert found.value == pytest.approx(mean(by_question), **CLOSE)
    assert found.value > 1e-4
    assert found.each["0|1"] != pytest.approx(found.each["1|0"], **CLOSE)


@pytest.mark.parametrize("role", ["generator", "critic"])
def test_kl_to_base_is_each_agents_own(society, alone, measured, role):
    traces, slow = society[-1], alone[role]
    found = measured.kl_base_generators if role == "generator" else measured.kl_base_critics
    bare = alone["bare"]
    for agent in range(2):
        wanted = mean(slow[agent].kl(bare, *debate[agent][1:]) for debate in steps(traces, role))
        assert found.each[str(agent)] == pytest.approx(wanted, **CLOSE)


def test_agents_without_adapters_are_the_base_exactly(society, alone):
    base, generators, critics, traces = society
    bare = measure_diversity(traces, base=str(base))
    for found in (bare.kl_generators, bare.kl_critics, bare.kl_base_generators, bare.kl_base_critics):
        assert found.value == 0.0
        assert set(found.each.values()) == {0.0}
    mixed = measure_diversity(traces, base=str(base), generators=[None, generators[1]], critics=critics)
    assert mixed.kl_base_generators.each["0"] == 0.0
    assert mixed.kl_base_generators.each["1"] > 0
    assert mixed.models["generator-0"] == "base"
    wanted = mean(alone["bare"].nll(*debate[agent][1:]) for debate in steps(traces, "critic") for agent in (0, 1))
    assert bare.nll.value == pytest.approx(wanted, **CLOSE)


def test_one_finetuned_model_in_every_seat_is_at_no_distance_from_itself(society):
    base, generators, _, traces = society
    single = [generators[0]] * 2
    found = measure_diversity(traces, base=str(base), generators=single, critics=None)
    assert (found.kl_generators.value, found.kl_critics.value) == (0.0, 0.0)
    assert found.kl_base_critics.value > 0
    assert set(found.models.values()) == {generators[0].key}


def test_how_rows_are_batched_and_cut_in_pieces_changes_nothing(society, monkeypatch):
    base, generators, critics, traces = society
    asked = {"base": str(base), "generators": generators, "critics": critics, "scorer": str(base), "limit": 1}
    whole = measure_diversity(traces, **asked).to_json()
    with monkeypatch.context() as patch:
        patch.setattr(forcing, "TOKENS", 100)
        patch.setattr(forcing, "SLICE", 5000)
        patch.setattr(forcing, "LOGITS", 7 * len(Forcer(str(base), {}).tokenizer))
        pieces = measure_diversity(traces, **asked).to_json()
    for name in ("nll", "embedding", "kl_generators", "kl_critics", "kl_base_critics", "kl_external"):
        assert pieces[name]["value"] == pytest.approx(whole[name]["value"], **CLOSE)
        assert pieces[name]["each"] == pytest.approx(whole[name]["each"], **CLOSE)


def test_the_external_scorer_compares_position_by_position_up_to_the_shorter_reply(society, alone):
    base, _, _, traces = society
    found = measure_diversity(traces, base=str(base), scorer=str(base))
    slow = alone["bare"]
    by_question, lengths = [], []
    for episode, debate in zip(traces.episodes(), steps(traces, "critic"), strict=True):
        prompt = [{"role": "user", "content": episode.task.prompt}]
        along = [slow.following(prompt, reply)[0] for _, _, reply in debate]
        by_question.append(
            mean(
                mean(divergence(p, q) for p, q in zip(along[i], along[j], strict=False))
                for i, j in permutations(range(2))
            )
        )
        lengths.append({len(found) for found in along})
    assert any(len(found) > 1 for found in lengths)
    assert found.kl_external.value == pytest.approx(mean(by_question), **CLOSE)
    assert found.scorer == str(base)
    assert measure_diversity(traces, base=str(base)).kl_external is None


class Known(Embeddings):
    """Points on a circle, by who speaks."""

    name = "known"

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]

    def embed_query(self, text):
        return [2.0, 0.0] if text.startswith("Agent A") else [3.0, 4.0]


def test_dissimilarity_is_of_the_replies_that_give_the_consensus(society):
    base, _, _, traces = society
    found = measure_diversity(traces, base=str(base), embedder=Known())
    assert found.embedding.value == pytest.approx(1 - 0.6)
    assert found.embedding.questions == 2  # of the other question one reply alone is right
    assert found.embedder == "known"


def test_the_base_embeds_by_the_mean_of_its_last_hidden_states(society, alone, measured):
    traces, model = society[-1], alone["bare"]

    def vector(text):
        with torch.no_grad():
            told = model.model(input_ids=torch.tensor([model.encode(text)]), output_hidden_states=True)
        return told.hidden_states[-1][0].mean(0)

    wanted = [
        1 - float(torch.cosine_similarity(vector(debate[0][2]), vector(debate[1][2]), dim=0))
        for number, debate in enumerate(steps(traces, "critic"))
        if number != 1
    ]
    assert measured.embedding.value == pytest.approx(mean(wanted), rel=1e-3)
    assert "mean of the bare base's last hidden states" in measured.embedder


def test_no_token_is_scored_with_a_look_at_what_comes_behind_it(society, alone):
    base, _, _, traces = society
    _, prompt, reply = steps(traces, "critic")[0][0]
    model = alone["bare"]
    before, told = model.ids(prompt, reply)
    by_hand = [-math.log(model.next_of(before + told[:at])[token]) for at, token in enumerate(told)]
    assert model.nll(prompt, reply) == pytest.approx(mean(by_hand), **CLOSE)
    forcer = Forcer(str(base), {})
    row = forcer.encode(prompt, {"role": "assistant", "content": reply})
    (batch,) = forcer.batches([row])
    assert token_nll(forcer.logits("", batch), batch.labels).tolist() == pytest.approx(by_hand, **CLOSE)


def test_distances_of_two_coins_are_those_on_paper():
    even, bent = torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[0.9, 0.1]]).log()
    wanted = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    assert float(token_kl(even, bent)) == pytest.approx(wanted, rel=1e-5)
    assert float(token_kl(even, even)) == 0.0
    assert float(token_nll(bent, torch.tensor([1]))) == pytest.approx(-math.log(0.1), rel=1e-5)


def test_the_result_is_json_and_names_its_definitions(measured):
    told = json.loads(json.dumps(measured.to_json()))
    assert told["diversity"] == pytest.approx(1 - (1 + 0.5 + 1) / 3)
    assert set(told["definitions"]) >= {"consensus", "nll", "embedding", "kl", "kl_base", "kl_external"}
    assert told["sampled"] == 3


def test_replies_longer_than_the_window_are_left_out_and_counted(society, tmp_path):
    base, _, _, _ = society
    traces = SQLTraceStore("sqlite://")
    record(traces, "1+1 " * 300, ["2", "3"], ["2", "2"], consensus="2")
    record(traces, "1+1", ["2", "3"], ["2", "2"], consensus="2")
    found = measure_diversity(traces, base=str(base))
    assert found.too_long == 4
    assert found.nll.questions == 1


def test_plain_votes_are_measured_by_their_one_round(society, alone):
    base, generators, _, _ = society
    traces = SQLTraceStore("sqlite://")
    record(traces, "1+1", ["2", "2"], consensus="2")
    found = measure_diversity(traces, base=str(base), generators=generators)
    assert (found.kl_critics.value, found.kl_base_critics.value) == (None, None)
    (debate,) = steps(traces, "generator")
    slow = alone["generator"]
    wanted = mean(slow[1 - agent].nll(prompt, reply) for agent, prompt, reply in debate)
    assert found.nll.value == pytest.approx(wanted, **CLOSE)


def test_one_agent_has_nobody_to_differ_from(society):
    base, generators, _, _ = society
    traces = SQLTraceStore("sqlite://")
    record(traces, "1+1", ["2"], ["2"], consensus="2")
    found = measure_diversity(traces, base=str(base), generators=generators[:1])
    assert (found.nll.value, found.kl_generators.value, found.embedding.value) == (None, None, None)
    assert found.kl_base_generators.value > 0


def test_users_are_not_shown_what_peft_has_to_mend(society):
    base, generators, critics, traces = society
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        measure_diversity(traces, base=str(base), generators=generators, critics=critics)


def test_wrong_adapters_are_refused(society, tmp_path):
    base, generators, _, traces = society
    with pytest.raises(ConfigurationError, match="one adapter for each"):
        measure_diversity(traces, base=str(base), generators=generators[:1])
    with pytest.raises(AdapterMismatchError, match="its own base"):
        measure_diversity(traces, base="nano", generators=generators)
    with pytest.raises(UnsupportedAdapterError, match="prefix"):
        measure_diversity(traces, base=str(base), generators=[replace(generators[0], method="prefix"), None])
    with pytest.raises(AdapterNotFoundError, match="restore"):
        measure_diversity(traces, base=str(base), generators=[replace(generators[0], folder=str(tmp_path)), None])


def test_the_bundled_base_is_measured_as_it_is(society):
    *_, traces = society
    found = measure_diversity(traces, base="nano", limit=2)
    assert found.sampled == 2
    assert found.nll.value > 0
    assert found.kl_base_critics.value == 0.0
    assert 0 <= found.embedding.value < 1
