from __future__ import annotations

import asyncio
import json
import logging
import shutil
import subprocess
import sys
import textwrap
import threading

import pytest
from click.testing import CliRunner
from handover_replies import said
from langchain_core.messages import HumanMessage

from cmat_graph import AdapterCard, AdapterRegistry, create_cmat_graph, run_episodes
from cmat_graph.cli import cli
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError
from cmat_graph.models import ExpertChatModel
from cmat_graph.models.handover import HandOver, Trial, TrialResult
from cmat_graph.models.handover.ledger import read_trials
from cmat_graph.testing import ScriptedChatModel
from cmat_graph.traces import TraceHandler


def thread(name):
    return {"configurable": {"thread_id": str(name)}}


@pytest.fixture
def trial(model, tmp_path):
    def make(current="old", candidate="new", **settings):
        settings = {"share": 0.5, "state": tmp_path / "trial.jsonl", **settings}
        return Trial(current=model(current, name="old"), candidate=model(candidate, name="new"), **settings)

    return make


def play(trial, episodes, *, old=True, new=True, start=0):
    """Play episodes to their end; whoever answers succeeds as is told here."""
    for number in range(start, start + episodes):
        by = trial.invoke("?", thread(number)).text
        trial.report(str(number), new if by == "new" else old)


def test_an_episode_is_answered_by_one_of_the_two_throughout(trial):
    one = trial()
    by = [{one.invoke("?", thread(n)).text for _ in range(3)} for n in range(40)]
    assert all(len(each) == 1 for each in by)
    assert 10 < sum(each == {"new"} for each in by) < 30


def test_all_ways_to_ask_choose_alike(trial):
    one = trial()

    async def later(n):
        chunks = [chunk async for chunk in one.astream("?", thread(n))]
        return (await one.ainvoke("?", thread(n))).text, "".join(chunk.text for chunk in chunks)

    for n in range(10):
        streamed = "".join(chunk.text for chunk in one.stream("?", thread(n)))
        assert {one.invoke("?", thread(n)).text, streamed} == set(asyncio.run(later(n)))
    assert {reply.text for reply in one.batch(["?"] * 3, thread(1))} == {one.invoke("?", thread(1)).text}


def test_without_a_thread_a_conversation_is_known_by_how_it_began(trial):
    one = trial()
    for n in range(10):
        began = HumanMessage(f"task {n}")
        assert one.invoke([began]).text == one.invoke([began, said("thought"), HumanMessage("go on")]).text


@pytest.mark.parametrize(("share", "answers"), [(0.0, {"old"}), (1.0, {"new"})])
def test_none_and_all(share, answers, trial):
    one = trial(share=share)
    assert {one.invoke("?", thread(n)).text for n in range(20)} == answers


def test_a_worse_candidate_is_rolled_back_by_itself(trial, caplog):
    told = []
    one = trial(on_rollback=told.append)
    with caplog.at_level(logging.WARNING):
        play(one, 60, new=False)
    result = one.result()
    assert (result.status, result.share) == ("rolled back", 0.0)
    assert [each.status for each in told] == ["rolled back"]
    assert "worse and rolled back" in caplog.text
    assert {one.invoke("?", thread(n)).text for n in range(100)} == {"old"}  # episodes that it had begun, too


def test_one_that_is_as_good_stays(trial):
    one = trial()
    play(one, 80)
    assert one.result().status == "running"


def test_a_better_one_takes_over_where_somebody_wants_that(trial):
    told = []
    one = trial(on_promote=told.append)
    play(one, 60, old=False)
    assert [each.status for each in told] == ["better"]
    assert {one.invoke("?", thread(n)).text for n in range(1000, 1020)} == {"new"}
    alone = trial(name="another")
    play(alone, 60, old=False)
    assert alone.result().status == "better"
    assert {alone.invoke("?", thread(n)).text for n in range(1000, 1020)} == {"old", "new"}


def test_a_restart_goes_on(trial):
    play(trial(), 6, new=False)
    again = trial()
    assert sum(tally.episodes for tally in again.result().outcomes.values()) == 6
    play(again, 60, new=False, start=6)
    assert trial().result().status == "rolled back"


def test_a_hook_that_fails_changes_nothing(trial, caplog):
    def broken(result):
        raise RuntimeError("no pager")

    one = trial(on_rollback=broken)
    play(one, 60, new=False)
    assert one.result().status == "rolled back"
    assert "no pager" in caplog.text


def test_a_candidate_that_is_down_costs_no_answer_and_is_rolled_back(trial):
    one = trial(candidate=ConnectionError("down"))
    for n in range(60):
        assert one.invoke("?", thread(n)).text == "old"
        assert "".join(chunk.text for chunk in one.stream("?", thread(f"s{n}"))) == "old"
        one.report(str(n), True)
        one.report(f"s{n}", True)
    assert one.result().outcomes["candidate"].successes == 0
    assert one.result().status == "rolled back"
    size = one.state.stat().st_size
    play(one, 10, start=1000)
    assert one.state.stat().st_size == size  # once it is over nothing more is kept


def test_what_neither_can_answer_is_not_held_against_the_candidate(trial):
    one = trial(current=ConnectionError("down"), candidate=ConnectionError("down"), share=1.0)
    with pytest.raises(ConnectionError):
        one.invoke("?", thread(1))
    assert one.result().outcomes["candidate"].episodes == 0


def test_an_unknown_episode_and_a_second_report_are_not_counted(trial, caplog):
    one = trial()
    assert not one.report("nobody", True)
    assert "episode nobody is unknown" in caplog.text
    one.invoke("?", thread(1))
    assert [one.report("1", True), one.report("1", False)] == [True, False]
    assert sum(tally.episodes for tally in one.result().outcomes.values()) == 1


@pytest.mark.parametrize("bad", [{"share": 1.5}, {"share": -0.1}, {"alpha": 0}])
def test_arguments_out_of_range_are_refused(bad, trial):
    with pytest.raises(ConfigurationError, match="give a"):
        trial(**bad)


def test_a_model_is_not_tried_against_itself(model):
    same = model("x")
    with pytest.raises(ConfigurationError, match="against itself"):
        Trial(current=same, candidate=same)


def test_a_state_that_cannot_be_kept_is_refused(trial, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="cannot keep a trial"):
        trial(state=tmp_path / "file" / "trial.jsonl")


def test_half_written_lines_are_skipped(trial, tmp_path):
    one = trial()
    play(one, 5)
    with (tmp_path / "trial.jsonl").open("ab") as file:
        file.write(b'{"event": "ended", "epi')
    play(one, 5, start=5)
    assert sum(t.episodes for t in trial().result().outcomes.values()) == 10


def test_lines_that_cannot_be_are_skipped(trial, tmp_path):
    file = tmp_path / "trial.jsonl"
    play(trial(), 5)
    named = b'{"trial": "old against new", "event": '
    lines = [
        b"[" * 100_000,
        b"\xff\x00",
        *(
            named + b'"started", "share": ' + bad + b"}"
            for bad in (b'"abc"', b"null", b"1e400", b"-3", b"[1]", b"true1")
        ),
        named + b'"verdict", "verdict": 123}',
        named + b'"verdict", "verdict": ["worse"]}',
        named + b'"began", "episode": {"a": 1}, "arm": ["x"]}',
        named + b'"started", "current": {"a": 1}, "mode": null}',
    ]
    with file.open("ab") as out:
        out.write(b"\n" + b"\n".join(lines) + b"\n")
    again = trial(share=0.9)
    play(again, 5, start=5)
    result = again.result()
    assert (result.share, result.status, result.current, result.mode) == (0.9, "running", "old", "canary")
    assert sum(tally.episodes for tally in result.outcomes.values()) == 10
    (account,) = read_trials(file).values()
    assert TrialResult.of("old against new", account) == result


@pytest.mark.parametrize("share", ["abc", None, -1, [1]])
def test_a_trial_whose_settings_are_damaged_is_shown(share, registry):
    file = registry.root / "assistant" / "trial.jsonl"
    file.write_text(json.dumps({"trial": "t", "event": "started", "share": share}) + "\n")
    run = CliRunner().invoke(cli, ["adapters", "trial", "--adapters", str(registry.root)])
    assert "t: running, canary, share 0" in run.output


def test_after_a_restart_the_trial_goes_by_its_new_settings(trial, tmp_path):
    play(trial(share=0.1), 1)
    began = read_trials(tmp_path / "trial.jsonl")["old against new"].about["at"]
    again = trial(share=0.9)
    assert again.result().share == 0.9
    assert read_trials(tmp_path / "trial.jsonl")["old against new"].about["at"] == began
    size = again.state.stat().st_size
    trial(share=0.9)
    assert again.state.stat().st_size == size


# -- shadow -----------------------------------------------------------------------------------------------------------


def test_in_shadow_the_candidate_is_only_compared(trial):
    one = trial(mode="shadow", share=1.0)
    assert [one.invoke("?", thread(n)).text for n in range(3)] == ["old"] * 3
    assert "".join(chunk.text for chunk in one.stream("?", thread(3))) == "old"
    one.wait()
    assert one.result().beside == {"differed": 4}
    one.report("1", True)
    assert one.result().outcomes["candidate"].episodes == 0


def test_what_does_the_same_agrees(trial):
    call = {"name": "add", "args": {"a": 1}, "id": "1"}
    one = trial(
        said("Let me add.", calls=[call]), said("Adding:", calls=[{**call, "id": "2"}]), mode="shadow", share=1.0
    )
    one.invoke("?", thread(1))
    one.wait()
    assert one.result().beside == {"agreed": 1}


def test_a_shadow_neither_delays_nor_breaks_a_reply(trial, model):
    gate = threading.Event()

    class Slow(ScriptedChatModel):
        def _generate(self, *args, **kwargs):
            gate.wait(10)
            raise RuntimeError("no")

    one = Trial(current=model("old"), candidate=Slow(replies=["x"]), mode="shadow", share=1.0)
    replies = [one.invoke("?", thread(n)).text for n in range(100)]
    gate.set()
    one.wait()
    assert replies == ["old"] * 100
    beside = one.result().beside
    assert beside["failed"] + beside["skipped"] == 100
    assert beside["skipped"] > 0


def test_a_shadow_is_in_no_trace(trial, traces):
    one = trial(mode="shadow", share=1.0)
    create_cmat_graph(one).compile().invoke({"messages": [("user", "Hi")]}, {"callbacks": [TraceHandler(traces)]})
    one.wait()
    (episode,) = traces.episodes()
    assert [step.completion for step in episode.steps] == ["old"]


# -- in a graph -------------------------------------------------------------------------------------------------------


def test_run_episodes_reports_by_itself(env, traces, model):
    expert = ExpertChatModel(demonstrations=env.demonstrations())
    one = Trial(current=expert, candidate=model("I do not know."), share=0.5)
    graph = create_cmat_graph(one, max_attempts=1).compile()
    outcomes = run_episodes(graph, env.tasks("train"), env=env, traces=traces, concurrency=4)
    result = one.result()
    assert result.status == "rolled back"
    assert [o.reward for o in outcomes[-10:]] == [1.0] * 10
    played = {step.model for episode in traces.episodes() for step in episode.steps}
    assert played == {"expert", "scripted"}


def test_it_reports_without_traces_too_and_a_checkers_word_counts(trial):
    one = trial(share=1.0)
    checker = ScriptedChatModel(replies=["approve", "reject: wrong"])
    graph = create_cmat_graph(one, checker=checker, max_attempts=1).compile()
    for _ in range(3):
        graph.invoke({"messages": [("user", "Hi")]})
    assert one.result().outcomes["candidate"] == (3, 1)


def test_an_answer_that_nobody_judged_is_no_success(trial):
    one = trial(share=1.0)
    create_cmat_graph(one).compile().invoke({"messages": [("user", "Hi")]})
    assert one.result().outcomes["candidate"].episodes == 0


def test_it_works_inside_an_agent_and_around_a_hand_over(env, model):
    from langchain.agents import create_agent

    pair = HandOver(primary=model(said("new", 0.1)), fallback=model("large"))
    one = Trial(current=model("old"), candidate=pair, share=1.0)
    checker = ScriptedChatModel(replies=["approve"])
    result = create_cmat_graph(create_agent(one), checker=checker).compile().invoke({"messages": [("user", "Hi")]})
    assert result["messages"][-1].text == "large"
    assert one.result().outcomes["candidate"] == (1, 1)


# -- adapters ---------------------------------------------------------------------------------------------------------


class Tuned(ScriptedChatModel):
    adapter: str = ""


@pytest.fixture
def registry(tmp_path):
    registry = AdapterRegistry(tmp_path / "adapters")
    for name in ("old", "new"):
        card = AdapterCard(name=name, node="assistant", base="nano")
        registry.add(card, lambda folder, card=card: card)
    return registry


def test_a_roll_back_promotes_the_serving_adapter_again(registry):
    old, new = (Tuned(replies=[name], adapter=f"assistant/{name}") for name in ("old", "new"))
    registry.promote(registry.get("new"))
    one = Trial(current=old, candidate=new, share=0.5, registry=registry)
    play(one, 60, new=False)
    assert registry.current("assistant") == "old"
    with pytest.raises(ConfigurationError, match="against itself"):
        Trial(current=old, candidate=Tuned(replies=["x"], adapter="assistant/old"))


def test_a_candidate_that_stays_promoted_is_named(registry, caplog):
    registry.promote(registry.get("new"))
    new = Tuned(replies=["new"], adapter="assistant/new")
    one = Trial(current=Tuned(replies=["old"]), candidate=new, share=0.5, registry=registry)
    play(one, 60, new=False)
    assert "assistant/new is still promoted" in caplog.text


def rolled_back(registry, **settings):
    old, new = (Tuned(replies=[name], adapter=f"assistant/{name}") for name in ("old", "new"))
    one = Trial(current=old, candidate=new, share=0.5, registry=registry, **settings)
    play(one, 60, new=False)
    assert one.result().status == "rolled back"


def test_what_was_promoted_by_hand_meanwhile_stays(registry):
    third = AdapterCard(name="third", node="assistant", base="nano")
    registry.promote(registry.add(third, lambda folder: third))
    rolled_back(registry)
    assert registry.current("assistant") == "third"


def test_nothing_is_promoted_where_nothing_was(registry):
    rolled_back(registry)
    assert registry.current("assistant") is None


def test_whoever_is_to_be_told_is_told_though_the_old_adapter_is_gone(registry, caplog):
    told = []
    registry.promote(registry.get("new"))
    shutil.rmtree(registry.root / "assistant" / "old")
    rolled_back(registry, on_rollback=lambda result: told.append(result.status))
    assert told == ["rolled back"]
    assert "assistant/new is still promoted: no adapter 'assistant/old'" in caplog.text
    assert "cmat-graph adapters promote NAME" in caplog.text


def test_whoever_is_to_be_told_is_told_though_the_registry_breaks(registry, monkeypatch):
    told = []
    monkeypatch.setattr(AdapterRegistry, "current", lambda *args: 1 / 0)
    rolled_back(registry, on_rollback=lambda result: told.append(result.status))
    assert told == ["rolled back"]


def test_a_promoted_adapter_that_is_gone_is_named(registry):
    registry.promote(registry.get("old"))
    shutil.rmtree(registry.root / "assistant" / "old")
    with pytest.raises(AdapterNotFoundError, match=r"assistant/old is promoted, but cannot be read.*give current=NAME"):
        Trial.load(registry, "new")


def test_an_adapter_is_not_tried_against_itself(registry):
    registry.promote(registry.get("new"))
    with pytest.raises(ConfigurationError, match="assistant/new is the current adapter itself"):
        Trial.load(registry, "new")


def test_the_command_shows_it(registry, trial, capsys):
    play(trial(state=registry.root / "assistant" / "trial.jsonl"), 60, new=False)
    run = CliRunner().invoke(cli, ["adapters", "trial", "--adapters", str(registry.root), "--json"])
    (told,) = json.loads(run.output.splitlines()[-1])
    assert (told["status"], told["current"], told["candidate"]) == ("rolled back", "old", "new")
    assert told["outcomes"]["candidate"]["rate"] == 0.0
    run = CliRunner().invoke(cli, ["adapters", "trial", "--adapters", str(registry.root)])
    assert "old against new: rolled back, canary, share 0" in run.output
    run = CliRunner().invoke(cli, ["adapters", "trial", "checker", "--adapters", str(registry.root)])
    assert "no trial of checker" in run.output


def test_several_processes_share_a_trial(tmp_path):
    code = textwrap.dedent("""
        import sys
        from cmat_graph.models.handover import Trial
        from cmat_graph.testing import ScriptedChatModel
        old, new = ScriptedChatModel(replies=["old"]), ScriptedChatModel(replies=["new"], model_name="new")
        trial = Trial(current=old, candidate=new, share=0.5, state=sys.argv[1], alpha=1e-9)
        for n in range(100):
            episode = f"{sys.argv[2]}-{n}"
            trial.invoke("?", {"configurable": {"thread_id": episode}})
            trial.report(episode, True)
    """)
    file = tmp_path / "trial.jsonl"
    runs = [subprocess.Popen([sys.executable, "-c", code, file, str(n)]) for n in range(3)]
    assert [run.wait() for run in runs] == [0, 0, 0]
    old, new = ScriptedChatModel(replies=["old"]), ScriptedChatModel(replies=["new"], model_name="new")
    result = Trial(current=old, candidate=new, state=file).result()
    assert sum(tally.episodes for tally in result.outcomes.values()) == 300
