"""Gold commands and shop actions broken on purpose."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.flaws import SHELL_FLAWS, SHOP_FLAWS, ShopPage, break_shell, break_shop
from cmat_graph.probes import probe_bash, probe_click

COMMANDS = (
    "cut -d' ' -f1 logs/app.log | sort | uniq -c | sort -rn | head -n 1",
    "grep -c 'error' logs/app.log",
    "mv notes/a.txt notes/b.txt",
    "echo 'ada paid 3' >> data/list.csv",
)
PATHS = ["logs/old.log", "notes/a.txt", "data/list.csv"]


def shell(command, seed=0):
    return {flaw.name: flaw for flaw in break_shell(command, random.Random(seed), paths=PATHS)}


def test_every_kind_of_shell_flaw_is_met_in_some_command():
    assert set().union(*map(shell, COMMANDS)) == set(SHELL_FLAWS)


def test_a_quote_that_is_not_closed_does_not_parse():
    assert probe_bash(shell(COMMANDS[1])["missing quote"].broken) is not None


def test_what_destroys_is_rejected_and_never_mended():
    flaw = shell(COMMANDS[1])["destroys"]
    assert (flaw.broken, flaw.decision, flaw.category) == ("rm -rf logs/app.log", "reject", "unsafe")


def test_a_flag_becomes_another_of_the_same_program():
    assert shell("wc -l notes/a.txt")["wrong flag"].broken in ("wc -c notes/a.txt", "wc -w notes/a.txt")


def test_adding_becomes_overwriting():
    assert shell(COMMANDS[3])["wrong redirect"].broken == "echo 'ada paid 3' > data/list.csv"


@given(st.text(max_size=60), st.integers(0, 5))
def test_any_text_can_be_tried_as_a_command(command, seed):
    for flaw in break_shell(command, random.Random(seed), paths=PATHS):
        assert flaw.broken.strip() != command.strip()


@given(st.sampled_from(COMMANDS), st.integers(0, 2_000))
def test_a_broken_path_stays_below_the_folder(command, seed):
    for flaw in break_shell(command, random.Random(seed), paths=PATHS):
        assert not [word for word in flaw.broken.replace("'", " ").split() if word.startswith(("/", "~", ".."))]


RESULTS = ShopPage(products=["b01", "b02", "b03"], searches=["lamps"])
ITEM = ShopPage(options={"color": ["black", "white"], "size": ["s", "m"]}, searches=["lamps"])
START = ShopPage(search_bar=True, searches=["lamps", "chairs"])


def shop(action, page):
    return {flaw.name: flaw for flaw in break_shop(action, page, random.Random(1))}


def test_every_kind_of_shop_flaw_is_met_on_some_page():
    met = [
        shop("search[tables]", START),
        shop("click[b01]", RESULTS),
        shop("click[black]", ITEM),
        shop("click[Buy Now]", ITEM),
    ]
    assert set().union(*met) == set(SHOP_FLAWS)


def test_a_wrong_option_is_another_of_the_same_kind():
    assert shop("click[black]", ITEM)["wrong option"].broken == "click[white]"
    assert shop("click[black]", ITEM)["wrong option"].fixed == "click[black]"


def test_what_is_not_on_the_page_is_what_the_probe_finds():
    broken = shop("click[b01]", RESULTS)["not on the page"].broken
    assert probe_click(broken, RESULTS.products, has_search_bar=False) is not None


def test_what_is_no_action_has_no_flaws():
    assert break_shop("buy it", ITEM, random.Random(0)) == []
