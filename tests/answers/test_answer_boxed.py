r"""Final answers of MATH: where they stand, and which of them are one. Each pair was judged by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.answers import answer_kind
from cmat_graph.answers.boxed import last_boxed

pytest.importorskip("sympy", reason="the extra `math` is not installed")

BOXED = answer_kind("boxed")

SAME = r"""
\frac{1}{2} ~ \dfrac{1}{2}
\frac{1}{2} ~ \tfrac12
\frac{1}{2} ~ 1/2
\frac{1}{2} ~ 0.5
\frac{1}{2} ~ .5
\frac{3}{8} ~ 0.375
\frac{-1}{2} ~ -\frac{1}{2}
\frac{3}{-4} ~ -\frac{3}{4}
1\frac{1}{2} ~ \frac{3}{2}
1 1/2 ~ \frac{3}{2}
-1\frac{1}{2} ~ -1.5
12\frac12 ~ 12.5
2.0 ~ 2
1.50 ~ 1.5
1,000 ~ 1000
1,\!000 ~ 1000
1{,}000{,}000 ~ 1000000
25,000 ~ 25 000
3 million ~ 3000000
1.5 million ~ 1500000
50\% ~ 50
\$5.00 ~ 5
\$12,500 ~ 12500
90^\circ ~ 90
120^{\circ} ~ 120
30 degrees ~ 30
5\text{ cm} ~ 5
5 \text{ cm}^2 ~ 5
5 cm^2 ~ 5
17\mbox{ dollars} ~ 17
10\,\text{m/s} ~ 10
12 square units ~ 12
x=5 ~ 5
x = \frac{1}{2} ~ 0.5
\theta = 30^\circ ~ 30
y = 2x + 3 ~ 3 + 2x
x \in [1,2] ~ [1, 2]
(5) ~ 5
\text{Yes} ~ yes
\text{Sunday} ~ sunday
\textbf{(C)} ~ (C)
\text{(C)} ~ C
3:30\text{ p.m.} ~ 3:30
\sqrt2 ~ \sqrt{2}
2\sqrt{3} ~ \sqrt{12}
\frac{\sqrt{2}}{2} ~ \frac{1}{\sqrt2}
\frac{1}{\sqrt{2}+1} ~ \sqrt{2}-1
\sqrt[3]{16} ~ 2\sqrt[3]{2}
\frac{\pi}{3} ~ \pi/3
\pi r^2 ~ r^2\pi
6 + 9i ~ 9i + 6
x^2 + 2x + 1 ~ (x+1)^2
x(x+3) ~ x^2+3x
\frac{x+1}{2} ~ \frac{1}{2}x+\frac{1}{2}
\frac{x}{2} ~ 0.5x
x\frac{1}{2} ~ \frac{x}{2}
\tan^2 x ~ (\tan x)^2
\log_2 x ~ \frac{\ln x}{\ln 2}
2\cdot 3^{x} ~ 3^x \times 2
|x-1| ~ |1-x|
(-\infty,3] ~ (-\infty, 3]
\left[ 0, 1 \right) ~ [0,1)
(\frac{1}{2}, 3) ~ (0.5,3)
(1,234) ~ (1, 234)
(3,\frac{\pi}{2}) ~ \left(3, \pi/2\right)
(-\infty,2)\cup(3,\infty) ~ (3,\infty) \cup (-\infty,2)
\{1,2,3\} ~ \{3,1,2\}
\{\frac12, 2\} ~ \{2, 0.5\}
2\text{ or }3 ~ 2, 3
x=1 \text{ or } x=2 ~ x=1, x=2
\begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{bmatrix} 1 & 2 \\ 3 & 4 \end{bmatrix}
\begin{pmatrix} 1/2 \\ 0 \end{pmatrix} ~ \begin{pmatrix} 0.5 \\ 0 \end{pmatrix}
x \geq 5 ~ x\ge5
\emptyset ~ \varnothing
1010_2 ~ 1010_{2}
\boxed{5} ~ 5
$7$ ~ 7
\(7\) ~ 7
7. ~ 7
""".strip().splitlines()

DIFFERENT = r"""
\frac{2}{4} ~ \frac{1}{2}
\frac{4}{2} ~ 2
\sqrt{4} ~ 2
10^6 ~ 1000000
0.33 ~ \frac{1}{3}
0.5 ~ 50\%
11/2 ~ 1 1/2
-3 ~ 3
12.5 ~ 125
1,234 ~ 1, 234
[0,1) ~ (0,1)
(-2,3) ~ [-2,3]
(1,2) ~ (2,1)
(1,2) ~ \{1,2\}
1,2 ~ (1,2)
(1,2) ~ (1,2,3)
\{1,2\} ~ \{1,3\}
(-\infty,2)\cup(3,\infty) ~ (-\infty,2]\cup(3,\infty)
\begin{pmatrix}1&2\\3&4\end{pmatrix} ~ \begin{pmatrix}1&3\\2&4\end{pmatrix}
\begin{vmatrix}1&2\\3&4\end{vmatrix} ~ \begin{pmatrix}1&2\\3&4\end{pmatrix}
\sqrt{x^2} ~ x
x+1 ~ x-1
x+y ~ x-y
2\sqrt{3} ~ 3\sqrt{2}
\pi ~ 3.14159265358979
\text{Yes} ~ \text{No}
no ~ on
1010_2 ~ 1010_3
1010_2 ~ 1010
x > 5 ~ x \ge 5
5 ~ \text{five}
i ~ -i
\infty ~ -\infty
\log_2 x ~ \log_3 x
""".strip().splitlines()


@pytest.mark.parametrize("pair", SAME)
def test_these_are_one_answer(pair):
    left, right = (side.strip() for side in pair.split(" ~ "))
    assert BOXED.same(left, right)
    assert BOXED.same(right, left)


@pytest.mark.parametrize("pair", DIFFERENT)
def test_these_are_two_answers(pair):
    left, right = (side.strip() for side in pair.split(" ~ "))
    assert not BOXED.same(left, right)
    assert not BOXED.same(right, left)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (r"so \boxed{1}, or rather \boxed{2}.", "2"),
        (r"\boxed{\frac{1}{1+\sqrt{2}}}", r"\frac{1}{1+\sqrt{2}}"),
        (r"$\boxed{x = 5}$", "5"),
        (r"\fbox{12}", "12"),
        (r"Thus $\boxed 5$.", "5"),
        (r"Thus \boxed 3.5.", "3.5"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{\text{(B)}}", "(B)"),
        (r"\boxed{1} and \boxed{2", None),  # the last one counts, and it never closes
        (r"\boxed{}", None),
        (r"\boxed", None),
        ("the answer is 5", None),
        ("", None),
    ],
)
def test_finds_the_last_box(reply, answer):
    assert BOXED.extract(reply) == answer


@given(st.text(alphabet="ab{}\\ 1", max_size=30))
def test_what_is_boxed_is_found(inside):
    depth = 0
    for at, char in enumerate(inside):
        if char in "{}" and (at == 0 or inside[at - 1] != "\\"):
            depth += {"{": 1, "}": -1}[char]
        if depth < 0:
            return
    if depth or "\\" in inside:
        return
    assert last_boxed(f"first \\boxed{{no}} then \\boxed{{{inside}}} end") == (inside.strip() or None)


ANSWERS = st.one_of(
    st.sampled_from([side.strip() for pair in SAME + DIFFERENT for side in pair.split(" ~ ")]),
    st.text(max_size=30),
    st.text(alphabet="0123456789x+-*/^(){}[],.\\ frac", max_size=20),
)


@given(ANSWERS, ANSWERS)
def test_sameness_is_reflexive_and_symmetric(left, right):
    assert BOXED.same(left, left)
    assert BOXED.same(left, right) == BOXED.same(right, left)


@given(ANSWERS)
def test_tidying_an_answer_again_leaves_the_same_answer(text):
    answer = BOXED.extract(f"\\boxed{{{text}}}")
    again = None if answer is None else BOXED.extract(f"\\boxed{{{answer}}}")
    assert again is None or answer is None or BOXED.same(answer, again)
