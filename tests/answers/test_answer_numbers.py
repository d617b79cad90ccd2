from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.answers import answer_kind
from cmat_graph.answers.numbers import write_fraction

NUMBER = answer_kind("number")


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("The result is 255.", "255"),
        ("So 4+462+17-525 = -42", "-42"),
        ("It is \u221242.", "-42"),
        ("It comes to = - 3", "-3"),
        ("10-3", "3"),  # a minus between two terms is no sign
        ("(2)-1", "1"),
        ("She earns $2,125.50!", "2125.5"),
        ("A loss of -$5", "-5"),
        ("A loss of $-5", "-5"),
        ("A loss of -$ 5", "-5"),
        ("which is \\frac{3}{4}", "0.75"),
        ("Answer: $-\\dfrac{1}{2}$", "-0.5"),
        ("4.5.6", "4.5"),
        ("so...5", "5"),
        ("12.0", "12"),
        ("007", "7"),
        ("-0.0", "0"),
        (".5", "0.5"),
        ("That is 3/4 of it", "0.75"),
        ("That is 2/6", "1/3"),
        ("on 1/2/2024", None),
        ("1/0", None),
        ("12,5", "5"),  # no decimal comma, and no thousands
        ("1,234,567", "1234567"),
        (r"\boxed{1,000\,^\circ\text{C}}", "1000"),
        ("1\\,234", "1234"),
        ("1{,}234", "1234"),
        ("1\u202f234", "1234"),
        ("1e3", "1000"),
        ("2.5e-3", "0.0025"),
        ("1e9999999999", None),
        ("NaN", None),
        ("inf", None),
        ("she came 42nd", None),
        ("x2", None),
        ("18 m^{2}", "18"),
        ("18 m^2", "18"),
        ("2^10", None),
        ("", None),
        ("no number", None),
        ("\u0664\u0662", "42"),
        ("\u200f42\u200e", "42"),
        ("\uff14\uff12", "42"),
        ("5\u00b2", "5"),
        ("**12**", "12"),
        ("50%", "50"),
    ],
)
def test_reads_the_last_number(reply, number):
    assert NUMBER.extract(reply) == number


@pytest.mark.parametrize(
    ("reply", "number"),
    [
        ("\\boxed{18} and that took 3 steps", "18"),
        ("\\boxed{1} is wrong, \\boxed{-2,000} is right", "-2000"),
        ("\\boxed{\\frac{3}{4}} of 8 apples", "0.75"),
        ("\\boxed{\\$1,080\\text{ a year}} of 12", "1080"),
        ("\\boxed 7 of 9", "7"),
        ("it is {1,234}. Checked 2 times", "1234"),
        ("{30} people, x^{2} = 4", "30"),
        ("the sum\n#### 1,600\nof 3 parts", "1600"),
        ("Answer: 42 (in 3 steps)", "42"),
        ("**Answer:** 42 (in 3 steps)", "42"),
        ("Answer: 3 * 4 = 12", "12"),
        ("answer: I add 2 and 3 and get 5", "5"),
        ("Answer: see below\n9", "9"),
        ("\\boxed{unknown}, perhaps 4", "4"),
    ],
)
def test_a_marked_answer_goes_before_the_last_number(reply, number):
    assert NUMBER.extract(reply) == number


def test_a_whole_number_may_have_a_decimal_zero():
    integer = answer_kind("integer")
    assert integer.extract("12.0") == "12"
    assert integer.extract("12.5") is None
    assert integer.extract("1/3") is None


def test_compares_exactly_and_not_as_floats():
    big = "1" + "0" * 5_000
    assert NUMBER.same(big, f"{big}.0")
    assert not NUMBER.same(big, big[:-1] + "1")
    assert not NUMBER.same("0.1", "0.1000000000000000001")
    assert NUMBER.same("1e3", "1,000")
    assert NUMBER.same("nothing", "nothing")
    assert not NUMBER.same("nothing", "0")


@given(
    number=st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**12), max_value=10**12),
    before=st.sampled_from(["", "The answer is ", "= ", "So it costs $", "**", "(", "Answer: ", "#### ", "\\boxed{"]),
    after=st.sampled_from(["", ".", "!", ",", ";", " dollars", "%", ")", "**", " km.", "\n", "...", "$"]),
    grouped=st.booleans(),
    minus=st.sampled_from(["-", "\u2212", "\uff0d"]),
)
def test_a_number_survives_what_is_written_around_it(number, before, after, grouped, minus):
    written = f"{number:,}" if grouped else f"{number:f}"
    end = "}" if before.endswith("{") else ""
    found = NUMBER.extract(before + written.replace("-", minus) + end + after)
    assert found is not None
    assert Decimal(found) == number


@given(st.integers(), st.integers(min_value=0, max_value=10**9), st.booleans())
def test_writing_zeros_and_commas_changes_nothing(number, zeros, plus):
    sign = "-" if number < 0 else "+" if plus else ""
    other = f"{sign}{'0' * (zeros % 20)}{abs(number)}.{'0' * (zeros % 7 + 1)}"
    assert NUMBER.same(str(number), other)
    assert NUMBER.extract(other) == str(number)


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_written_exactly(value):
    assert Fraction(write_fraction(value)) == value
    assert NUMBER.same(f"{value.numerator}/{value.denominator}", write_fraction(value))


@given(st.text(), st.text())
def test_sameness_is_reflexive_and_symmetric(left, right):
    assert NUMBER.same(left, left)
    assert NUMBER.same(left, right) == NUMBER.same(right, left)


@given(st.text())
def test_what_is_read_reads_as_itself(text):
    found = NUMBER.extract(text)
    assert found is None or NUMBER.extract(found) == found
