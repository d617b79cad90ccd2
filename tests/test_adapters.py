from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cmat_graph import AdapterCard, AdapterRegistry
from cmat_graph.errors import AdapterNotFoundError, ConfigurationError


def add(registry, name, *, created="2026-01-01"):
    card = AdapterCard(name=name, node="assistant", base="nano", created=created)

    def write(folder):
        (folder / "adapter_model.safetensors").write_bytes(b"weights")
        return card

    return registry.add(card, write)


@pytest.fixture
def registry(tmp_path):
    return AdapterRegistry(tmp_path / "adapters")


def test_an_adapter_is_found_by_id_name_node_and_folder(registry):
    card = add(registry, "one")
    assert registry.get("one") == registry.get("assistant/one") == registry.get("assistant") == card
    assert registry.get(card.folder) == card


def test_what_was_made_here_is_not_looked_for_in_the_working_folder(registry, tmp_path, monkeypatch):
    other = AdapterRegistry(tmp_path / "other")
    foreign = add(other, "one")
    monkeypatch.chdir(other.root)
    assert registry.get("assistant/one").key == foreign.key  # a folder's path
    assert registry.find("assistant", "one") is None
    assert registry.find("assistant", add(registry, "one").name) == registry.list()[0]
    with pytest.raises(ConfigurationError, match="is no name"):
        registry.find("assistant", "../one")


def test_a_lineage_is_followed_as_far_as_it_lies_here(registry):
    first = add(registry, "one")
    second = replace(add(registry, "two"), init=first.key)
    assert [card.name for card in registry.lineage(second)] == ["two", "one"]
    assert [card.name for card in registry.lineage(replace(second, init="assistant/gone@abc"))] == ["two"]
    assert [card.name for card in registry.lineage(replace(second, init=second.key))] == ["two"]


def test_a_node_means_its_promoted_adapter_else_the_newest(registry):
    old, new = add(registry, "old"), add(registry, "new", created="2026-02-01")
    assert registry.get("assistant") == new
    registry.promote(old)
    assert registry.get("assistant") == old


def test_an_unknown_adapter_lists_the_known_ones(registry):
    with pytest.raises(AdapterNotFoundError, match="none yet"):
        registry.get("x")
    add(registry, "one")
    with pytest.raises(AdapterNotFoundError, match="known: assistant/one"):
        registry.get("x")


def test_nothing_half_written_is_ever_registered(registry):
    old = add(registry, "a")

    def fill_the_disk(folder):
        (folder / "adapter_model.safetensors").write_bytes(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        registry.add(AdapterCard(name="a", node="assistant", base="other"), fill_the_disk)
    assert registry.list() == [old]
    assert [file.read_bytes() for file in registry.root.rglob("*.safetensors")] == [b"weights"]


def test_an_adapter_of_the_same_name_is_replaced_whole(registry):
    add(registry, "one")
    card = AdapterCard(name="one", node="assistant", base="other")

    def write(folder):
        (folder / "new").write_text("")
        return card

    registry.add(card, write)
    assert registry.get("one").base == "other"
    assert sorted(p.name for p in (registry.root / "assistant" / "one").iterdir()) == ["card.json", "new"]


def test_folders_can_be_moved(registry, tmp_path):
    add(registry, "one")
    shutil.move(registry.root, tmp_path / "elsewhere")
    moved = AdapterRegistry(tmp_path / "elsewhere").get("one")
    assert moved.folder == str(tmp_path / "elsewhere" / "assistant" / "one")


def test_a_card_keeps_its_scores(registry):
    card = registry.update(replace(add(registry, "one"), scores={"tuned": {"success_rate": 0.5}}))
    assert registry.get("one") == card


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b"])
def test_names_stay_inside_the_registry(registry, name):
    with pytest.raises(ConfigurationError, match="no name"):
        add(registry, name)


def test_a_broken_card_names_the_file_and_hides_no_other(registry):
    card, other = add(registry, "one"), add(registry, "two")
    (registry.root / "assistant" / "one" / "card.json").write_text("{")
    with pytest.raises(AdapterNotFoundError, match=r"card\.json"):
        registry.get(card.id)
    assert registry.list() == [other]


# -- promotion and rolling back ----------------------------------------------------------------------------------


def test_a_roll_back_goes_one_promotion_back_each_time(registry):
    cards = [add(registry, name, created=f"2026-0{at}-01") for at, name in enumerate(("one", "two", "three"), 1)]
    for card in cards:
        registry.promote(card)
    assert registry.rollback("assistant") == cards[1]
    assert registry.rollback("assistant", why="it was slow") == cards[0]
    assert registry.current("assistant") == "one"
    told = [(change.event, change.name, change.before) for change in registry.history("assistant")]
    assert told[-2:] == [("rolled back", "two", "three"), ("rolled back", "one", "two")]
    assert registry.history("assistant")[-1].why == "it was slow"


def test_under_the_first_promotion_there_is_the_base(registry):
    registry.promote(add(registry, "one"))
    assert registry.rollback("assistant") is None
    assert registry.current("assistant") == ""
    assert registry.serving("assistant") is None
    with pytest.raises(AdapterNotFoundError, match=r"rolled back to its base; name one.*assistant/one"):
        registry.get("assistant")
    with pytest.raises(ConfigurationError, match="nothing is promoted"):
        registry.rollback("assistant")
    registry.promote(registry.get("one"))
    assert registry.get("assistant").name == "one"


def test_what_was_promoted_after_a_roll_back_stands_on_what_was_rolled_back_to(registry):
    cards = {name: add(registry, name) for name in ("one", "two", "three")}
    registry.promote(cards["one"])
    registry.promote(cards["two"])
    registry.rollback("assistant")
    registry.promote(cards["three"])
    registry.promote(cards["three"])  # twice is once
    assert registry.rollback("assistant") == cards["one"]


def test_a_roll_back_passes_over_adapters_that_are_gone(registry):
    cards = [add(registry, name) for name in ("one", "two", "three")]
    for card in cards:
        registry.promote(card)
    shutil.rmtree(cards[1].folder)
    assert registry.rollback("assistant") == cards[0]


def test_a_registry_from_before_there_was_a_history_rolls_back_too(registry):
    cards = [add(registry, name) for name in ("one", "two")]
    (registry.root / "assistant" / "current").write_text("one\n")
    registry.promote(cards[1])
    assert registry.rollback("assistant") == cards[0]


def test_promotions_from_many_processes_are_all_kept_and_the_last_one_holds(registry):
    names = [f"a{at}" for at in range(6)]
    for name in names:
        add(registry, name)
    code = (
        "import sys; from cmat_graph import AdapterRegistry\n"
        "registry = AdapterRegistry(sys.argv[1]); card = registry.get(sys.argv[2])\n"
        "for _ in range(20): registry.promote(card)"
    )
    running = [subprocess.Popen([sys.executable, "-c", code, str(registry.root), name]) for name in names]
    assert [process.wait(60) for process in running] == [0] * 6
    history = registry.history("assistant")
    assert sorted(change.name for change in history) == sorted(names * 20)
    assert registry.current("assistant") == history[-1].name
    assert sorted(file.name for file in (registry.root / "assistant").glob(".*")) == []


def test_a_half_written_line_of_the_history_hides_no_other(registry):
    card = add(registry, "one")
    registry.promote(card)
    with (registry.root / "assistant" / "promotions.jsonl").open("a") as file:
        file.write('\n{"event": "promo')
    registry.promote(add(registry, "two"))
    assert [change.name for change in registry.history("assistant")] == ["one", "two"]


# -- what travels ------------------------------------------------------------------------------------------------


def test_of_a_base_in_a_folder_the_card_keeps_the_name_and_the_registry_where_it_lay(registry, tmp_path):
    base = tmp_path / "models" / "tiny"
    base.mkdir(parents=True)
    card = AdapterCard(name="one", node="assistant", base=str(base), base_hash="ab" * 32)
    card = registry.add(card, lambda folder: card)
    assert card.base == str(base)
    assert json.loads(Path(card.folder, "card.json").read_text())["base"] == "tiny"
    shutil.copytree(card.folder, tmp_path / "elsewhere" / "assistant" / "one")
    assert AdapterRegistry(tmp_path / "elsewhere").get("one").base == "tiny"
    assert registry.update(replace(card, scores={"a": 1})).base == str(base)
    assert str(tmp_path) not in Path(card.folder, "card.json").read_text()


def test_what_stood_there_comes_back_when_the_new_one_cannot_be_put_in_its_place(registry, monkeypatch):
    old = add(registry, "one")
    real = os.replace

    def refuse(source, target):
        if ".one-" in str(source) and not str(source).endswith("-old") and str(target).endswith("/one"):
            raise OSError("disk full")
        real(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        add(registry, "one", created="2027-01-01")
    assert registry.list() == [old]


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "/etc", ".hidden", ""])
def test_no_name_leaves_the_registry(registry, tmp_path, name):
    for ask in (registry.current, registry.history, registry.serving, registry.rollback, registry.list):
        with pytest.raises(ConfigurationError, match="no name for a node or adapter"):
            ask(name)
    for card in (AdapterCard(name="x", node=name, base="nano"), AdapterCard(name=name, node="x", base="nano")):
        with pytest.raises(ConfigurationError, match="no name for a node or adapter"):
            registry.promote(card)
    assert not list(tmp_path.iterdir())


def test_a_card_that_names_a_place_outside_is_not_read(registry, caplog):
    card = add(registry, "one")
    file = Path(card.folder, "card.json")
    file.write_text(json.dumps(json.loads(file.read_text()) | {"node": "../../etc"}))
    assert registry.list() == []
    assert "'../../etc' is no name for a node or adapter" in caplog.text
    with pytest.raises(AdapterNotFoundError, match="is no name"):
        registry.get("assistant/one")


def test_what_lies_in_the_registry_comes_before_a_folder_of_that_name(registry, tmp_path, monkeypatch):
    other = AdapterRegistry(tmp_path / "here")
    add(other, "one", created="2020-01-01")
    card = add(registry, "one")
    monkeypatch.chdir(tmp_path / "here")
    assert registry.get("assistant/one") == card
