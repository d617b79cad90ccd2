from __future__ import annotations

import shutil
from dataclasses import replace

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
