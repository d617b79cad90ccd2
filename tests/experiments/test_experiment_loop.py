"""Base, tuned and loop: what is played, what is paired, and what a second call leaves out."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cmat_graph.errors import ConfigurationError, EngineError, LeakError
from cmat_graph.experiments import Setup, save_result
from cmat_graph.experiments.lab import Lab
from cmat_graph.experiments.loop import play_loop
from cmat_graph.testing import ScriptedChatModel


def play(setup, base, **tuned):
    with Lab(setup, kind="loop") as lab:
        return play_loop(lab, base=base, tuned=tuned)


def test_every_arm_plays_the_same_tasks_and_is_paired(setup, lazy, expert):
    result = play(setup, lazy, first=expert, second=lazy)
    arms = {arm.name: arm for arm in result.arms}
    assert [arm.success.mean for arm in result.arms] == [0.0, 0.0, 0.5, 0.5]
    assert [arm.seeds for arm in result.arms] == [1, 1, 2, 2]
    assert {arm.tasks for arm in result.arms} == {3}
    assert arms["tuned"].success.stderr == pytest.approx(0.5)  # the seeds disagree, whatever the tasks say
    assert arms["base"].failures["ok_only"] == 3
    gap = next(gap for gap in result.gaps if (gap.better, gap.worse) == ("tuned", "base"))
    assert (gap.difference.mean, gap.p) == (0.5, 0.25)  # three tasks can prove no more
    assert arms["tuned"].adapters == ("first", "second")


def test_what_is_recorded_is_not_played_again(setup, lazy, expert, never):
    first = play(setup, lazy, one=expert)
    assert play(setup, never, one=never).arms == first.arms


def test_a_stopped_experiment_goes_on_with_the_arm_that_lacks(setup, lazy, expert, never):
    with pytest.raises(AssertionError, match="nothing should"):
        play(setup, lazy, one=never)
    result = play(setup, never, one=expert)
    assert [arm.success.mean for arm in result.arms] == [0.0, 0.0, 1.0, 1.0]


def test_more_seeds_add_to_what_is_there(setup, lazy, expert, never):
    play(setup, lazy, one=expert)
    result = play(replace(setup, seeds=2, concurrency=2), never, one=never, two=lazy)
    assert [arm.success.mean for arm in result.arms] == [0.0, 0.0, 0.5, 0.5]


def test_an_experiment_with_other_settings_needs_another_folder(setup, env, lazy):
    Lab(setup, kind="loop").traces.close()
    with pytest.raises(ConfigurationError, match=r"attempts: 3, now 2.*give another --out"):
        Lab(replace(setup, attempts=2), kind="loop")
    with pytest.raises(ConfigurationError, match=r"other settings \(test"):
        Lab(replace(setup, test=env.tasks("test")[:2]), kind="loop")
    with pytest.raises(ConfigurationError, match="holds the experiment 'loop'"):
        Lab(setup, kind="mix")


def test_a_model_that_cannot_answer_gives_no_result(setup, lazy):
    class Broken(ScriptedChatModel):
        def _generate(self, *args, **kwargs):
            raise OSError("the server is away")

    with pytest.raises(EngineError, match=r"every episode of 'base, seed 0' broke off.*the server is away"):
        play(setup, lambda: Broken(replies=["-"]), one=lazy)
    assert play(setup, lazy, one=lazy).arms[0].stopped == {"attempts": 3}


def test_held_out_tasks_are_never_learned_from(setup, env):
    with pytest.raises(LeakError, match="held-out tasks are in the training data"):
        replace(setup, train=[*setup.train, replace(setup.test[0], id="another", split="train")])
    with pytest.raises(ConfigurationError, match="nothing is learned from that split"):
        replace(setup, train=env.tasks("test"))
    with pytest.raises(ConfigurationError, match="needs test tasks"):
        Setup(folder=setup.folder, env=env, test=[])


def test_a_finding_is_kept_as_table_plot_and_page(setup, lazy, expert):
    result = play(setup, lazy, one=expert)
    files = save_result(result, setup.folder)
    assert all(file.stat().st_size for file in files)
    saved = json.loads((setup.folder / "result.json").read_text())
    assert [arm["success_rate"] for arm in saved["arms"]] == [0.0, 0.0, 1.0, 1.0]
    assert (saved["differences"][0]["mean"], saved["differences"][0]["p"]) == (1.0, 0.25)
    markdown = (setup.folder / "table.md").read_text()
    assert "| tuned against base | +100.0 ± 0.0 | 0.250 |" in markdown
    texts = [file.read_text() for file in setup.folder.rglob("*") if file.suffix in (".json", ".md", ".html", ".svg")]
    assert not [text for text in texts if str(setup.folder.parent) in text]
