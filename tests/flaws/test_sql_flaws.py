"""Gold statements broken on purpose."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.flaws import SQL_FLAWS, TableShape, break_sql
from cmat_graph.scoring import SQLTable

TABLE = SQLTable(
    name="Orders",
    columns=["Order", "Customer", "Amount", "State"],
    rows=[["A1", "Ada Brandt", "40", "open"], ["A2", "Ben Costa", "75", "paid"], ["A3", "Cleo Dietz", "9", "open"]],
)
SHAPE = TableShape(
    name=TABLE.name,
    columns=TABLE.columns,
    values={column: [str(row[at]) for row in TABLE.rows] for at, column in enumerate(TABLE.columns)},
)
UPDATE = "UPDATE `Orders` SET `State` = 'paid' WHERE `Order` = 'A1' AND `Customer` = 'Ada Brandt'"
INSERT = "INSERT INTO `Orders` (`Order`, `Customer`) VALUES ('A7', 'Dora Evans')"
COUNT = "SELECT COUNT(*) FROM `Orders` WHERE `State` = 'open'"
MOST = "SELECT `Customer` FROM `Orders` ORDER BY CAST(`Amount` AS DECIMAL) DESC LIMIT 1"
LARGEST = "SELECT MAX(Amount) FROM \"Orders\" WHERE State = 'open'"


def flaws_of(sql, seed=0):
    return {flaw.name: flaw for flaw in break_sql(sql, SHAPE, random.Random(seed))}


def test_every_kind_of_flaw_is_met_in_some_statement():
    assert set().union(*map(flaws_of, (UPDATE, INSERT, COUNT, MOST, LARGEST))) == set(SQL_FLAWS)


def test_each_flaw_says_what_is_wrong_and_what_mends_it():
    flaw = flaws_of(COUNT)["wrong value"]
    assert flaw.broken == "SELECT COUNT(*) FROM `Orders` WHERE `State` = 'paid'"
    assert flaw.fixed == COUNT
    assert flaw.reason == "The value 'paid' is not the task's; use 'open'."
    assert flaw.decision == "revise"


@pytest.mark.parametrize("name", ["unknown column", "wrong table", "missing bracket", "misspelt keyword"])
def test_what_is_called_an_error_fails_when_it_is_run(name):
    flaws = [flaws[name] for sql in (UPDATE, COUNT, MOST) if name in (flaws := flaws_of(sql))]
    assert flaws
    assert all(TABLE.run(flaw.broken) is None for flaw in flaws)
    assert {flaw.category for flaw in flaws} == {"error"}


def test_without_its_where_a_change_is_about_every_row():
    broken = flaws_of(UPDATE)["missing WHERE"].broken
    assert {row[3] for row in TABLE.run(broken).left} == {"paid"}


def test_without_its_where_a_question_keeps_its_order():
    sql = "SELECT `Customer` FROM `Orders` WHERE `State` = 'open' ORDER BY `Amount` LIMIT 1"
    assert flaws_of(sql)["missing WHERE"].broken == "SELECT `Customer` FROM `Orders` ORDER BY `Amount` LIMIT 1"


def test_a_wrong_column_is_one_of_the_table():
    broken = flaws_of("SELECT Customer FROM Orders WHERE Amount = '40'")["wrong column"].broken
    assert TABLE.run(broken) is not None


def test_a_change_that_only_reads_changes_nothing():
    effect = TABLE.run(flaws_of(UPDATE)["only reads"].broken)
    assert effect.left == sorted(map(tuple, TABLE.rows), key=repr)


def test_the_same_seed_breaks_alike():
    assert flaws_of(UPDATE, 3) == flaws_of(UPDATE, 3)


@given(st.text(max_size=80), st.integers(0, 5))
def test_any_text_can_be_tried(sql, seed):
    for flaw in break_sql(sql, SHAPE, random.Random(seed)):
        assert flaw.broken != sql
