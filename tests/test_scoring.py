"""Measures against cases worked out by hand, and against the packages that are known for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.errors import ConfigurationError
from cmat_graph.scoring import SQLTable, brier_score, calibration_error, same_effect, score_verdicts

TABLE = SQLTable(name="T", columns=["a", "b"], rows=[["1", "x"], ["2", "y"], ["3", None]])


def test_the_four_counts_of_verdicts():
    approved = [True, True, False, False, False]
    right = [True, False, False, False, True]
    score = score_verdicts(approved, right)
    assert (score.found, score.missed, score.false_alarms, score.approved) == (2, 1, 1, 1)
    assert score.accuracy == pytest.approx(3 / 5)
    assert score.precision == score.recall == score.f1 == pytest.approx(2 / 3)
    assert score.se == pytest.approx((0.6 * 0.4 / 5) ** 0.5)


def test_a_checker_that_approves_all_finds_nothing():
    score = score_verdicts([True, True], [True, False])
    assert (score.precision, score.recall, score.f1) == (0.0, 0.0, 0.0)


def test_verdicts_and_truths_must_be_as_many():
    with pytest.raises(ConfigurationError, match="2 verdicts"):
        score_verdicts([True, True], [True])


def test_calibration_error_of_three_told_chances():
    # bins: 0.95 -> one of two came true, gap |1.9 - 1|; 0.15 -> none came true, gap 0.15
    assert calibration_error([0.95, 0.95, 0.15], [True, False, False]) == pytest.approx((0.9 + 0.15) / 3)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1))
def test_calibration_error_and_brier_are_shares(pairs):
    chances, true = [chance for chance, _ in pairs], [came for _, came in pairs]
    assert 0 <= calibration_error(chances, true) <= 1
    assert 0 <= brier_score(chances, true) <= 1


def test_saying_the_base_rate_is_calibrated_and_no_better_than_its_variance():
    assert calibration_error([0.25] * 4, [True, False, False, False]) == 0.0
    assert brier_score([0.25] * 4, [True, False, False, False]) == pytest.approx(0.25 * 0.75)


def test_another_wording_of_the_same_statement_has_the_same_effect():
    assert same_effect("select b from T where a='1'", "SELECT `b` FROM `T` WHERE `a` = '1'", TABLE)
    assert not same_effect("SELECT b FROM T WHERE a = '2'", "SELECT `b` FROM `T` WHERE `a` = '1'", TABLE)


def test_a_change_is_compared_by_the_table_it_leaves():
    gold = "UPDATE T SET b = 'z' WHERE a = '1'"
    assert same_effect("UPDATE `T` SET `b` = 'z' WHERE `b` = 'x'", gold, TABLE)
    assert not same_effect("UPDATE T SET b = 'z'", gold, TABLE)
    assert not same_effect("SELECT * FROM T WHERE a = '1'", gold, TABLE)


def test_order_counts_only_where_it_is_asked_for():
    assert same_effect("SELECT a FROM T WHERE a IN ('2', '1')", "SELECT a FROM T WHERE a < '3'", TABLE)
    assert not same_effect("SELECT a FROM T ORDER BY a DESC", "SELECT a FROM T ORDER BY a", TABLE)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELEC a",
        "SELECT a FROM T; DROP TABLE T",
        "ATTACH '/etc/passwd' AS p",
        "SELECT load_extension('x')",
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c",
    ],
)
def test_what_fails_or_reaches_out_or_never_ends_has_no_effect(sql, monkeypatch):
    monkeypatch.setattr("cmat_graph.scoring.execution.SECONDS", 0.2)
    assert TABLE.run(sql) is None


def test_text_scores_are_those_of_sacrebleu_and_rouge_score():
    sacrebleu = pytest.importorskip("sacrebleu")
    rouge_scorer = pytest.importorskip("rouge_score.rouge_scorer")
    from cmat_graph.scoring.texts import score_texts

    said = ["SELECT a FROM T WHERE b = 'x'", "grep -c 'error' app.log"]
    gold = ["SELECT  a FROM T WHERE b = 'x'", "grep -c 'warning' app.log"]
    score = score_texts(said, gold)
    assert score.exact == 0.5  # white space does not count
    assert score.bleu4 == pytest.approx(sacrebleu.corpus_bleu(said, [gold]).score / 100)
    scorer = rouge_scorer.RougeScorer(["rouge2"])
    assert score.rouge2 == pytest.approx(
        sum(scorer.score(b, a)["rouge2"].fmeasure for a, b in zip(said, gold, strict=True)) / 2
    )
    assert score.count == 2


def test_no_correction_scores_nothing():
    pytest.importorskip("sacrebleu")
    from cmat_graph.scoring.texts import score_texts

    score = score_texts([""], ["wc -l a.txt"])
    assert (score.exact, score.bleu4, score.rouge1) == (0.0, 0.0, 0.0)
