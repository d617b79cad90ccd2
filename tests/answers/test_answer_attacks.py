"""Texts that mean harm: nothing may hang, raise or be carried out, and what cannot be read is no answer."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmat_graph.answers import KINDS, answer_kind, symbolic, vote
from cmat_graph.answers.symbolic import Worker, same_value

pytest.importorskip("sympy", reason="the extra `math` is not installed")

MILLION = 1_000_000
CANARY = Path(tempfile.mkdtemp()) / "cmat-was-here"
ATTACKS = {
    "a box that never closes": "\\boxed{" + "x" * MILLION,
    "braces that never close": "\\boxed{" + "{" * 10_000,
    "nested braces": "\\boxed{" + "{" * 10_000 + "}" * 10_000 + "}",
    "nested fractions": "\\boxed{" + "\\frac{" * 400 + "1" + "}{2}" * 400 + "}",
    "fractions without arguments": "\\boxed{" + "\\frac" * 390 + "}",
    "exponents on exponents": "\\boxed{" + "2^" * 900 + "2}",
    "many boxes": "\\boxed{1}" * 100_000,
    "a tower of powers": "\\boxed{9**9**9**9}",
    "a tower of carets": "\\boxed{9^9^9^9^9}",
    "factorials": "\\boxed{9999999!!!!}",
    "an import": f"\\boxed{{__import__('os').system('touch {CANARY}')}}",
    "an import alone": "__import__('os')",
    "a long number": "9" * MILLION,
    "a long number in a box": "\\boxed{" + "9" * 90_000 + "}",
    "a long power": "1e999",
    "a longer power": "1e999999999999999999",
    "many digits and no end": "{" + "1" * MILLION,
    "many commas": "1," * 300_000,
    "thousands that do not end": "1" + ",000" * 200_000 + ",0000",
    "spaces after a marker": "answer" + " " * MILLION,
    "spaces after a star": "Answer" + " *" * 300_000 + "!",
    "spaces in a letter": "(" + " " * MILLION + "A",
    "spaces in a box": "\\boxed" + " " * MILLION,
    "open brackets": "(" * MILLION,
    "not a number": "NaN",
    "infinite": "inf",
    "minus infinite": "-Infinity",
    "right to left": "\u202e\u200f\u2067123\u2069",
    "Arabic digits": "\\boxed{\u0661\u0662\u0663}",
    "a digit that is none": "\u2461 \u00b2 \u00bd \U0001d7d8",
    "half a character": "\ud800 12 \udfff",
    "nothing": "\0",
    "a verdict of many objects": '{"verdict": "approve"}' * 50_000,
    "lists within lists": "\\boxed{" + "[" * 900 + "1" + "]" * 900 + "}",
    "a large set": "\\boxed{\\{" + ",".join(map(str, range(400))) + "\\}}",
    "a matrix that never ends": "\\boxed{\\begin{pmatrix}" + "1&" * 500 + "}",
}


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("text", ATTACKS.values(), ids=ATTACKS)
def test_no_text_hangs_or_breaks_a_kind(name, text):
    kind = KINDS[name]
    start = time.process_time()
    answer = kind.extract(text)
    kind.same(text, text[::-1])
    if answer is not None:
        assert kind.same(answer, answer)
        assert kind.same(answer, "12") == kind.same("12", answer)
    assert time.process_time() - start < 3
    assert not CANARY.exists()


@pytest.mark.parametrize(
    ("text", "number"),
    [("right to left", "123"), ("Arabic digits", "123"), ("a longer power", None), ("not a number", None)],
)
def test_odd_numbers_are_read_or_are_none(text, number):
    assert answer_kind("number").extract(ATTACKS[text]) == number


@given(st.text())
def test_no_text_breaks_a_vote(text):
    for kind in KINDS.values():
        answers = [kind.extract(text), kind.extract(text[1:]), kind.extract(text * 2), text]
        assert vote(answers, kind, seed=text).answer is not None


HARD = [
    ("9^9^9", "1"),
    ("(9^9)^(9^9)", "1"),
    ("100!^100!", "1"),
    ("(x+y)^60*(x-y)^60", "(x^2-y^2)^60+1/3"),
    ("2^(2^(2^x))", "x^(x^(x^x))"),
    ("1/0", "x/0"),
    ("0^(-1)", "x"),
    ("log(0)", "tan(pi/2)"),
    ("(" * 100 + "x" + ")" * 100, "y"),
    ("sqrt(" * 50 + "x" + ")" * 50, "x^(1/2)"),
    ("sin(" * 40 + "x" + ")" * 40, "cos(" * 40 + "x" + ")" * 40),
    ("|" * 40 + "x", "x"),
    ("x_(x_(x_1))", "x_(x_(x_2))"),
]


@pytest.mark.clock
@pytest.mark.parametrize(("left", "right"), HARD)
def test_hard_algebra_ends_and_counts_as_different(left, right):
    start = time.monotonic()
    assert not same_value(left, right)
    assert time.monotonic() - start < 2 * symbolic.PATIENCE


def test_the_process_is_started_once_and_again_after_it_dies():
    worker = Worker()
    try:
        assert worker.ask("x+x", "2x") is True
        assert worker.ask("x+x", "3x") is False
        assert worker.ask("(", "x") is None
        assert worker.starts == 1
        assert worker._process is not None
        os.kill(worker._process.pid, signal.SIGKILL)
        worker._process.wait()
        assert worker.ask("y+y", "2y") is True
        assert worker.starts == 2
    finally:
        worker.close()


def test_a_question_that_takes_too_long_ends_the_process_and_not_the_next_question(tmp_path, monkeypatch):
    slow = tmp_path / "algebra.py"
    slow.write_text(
        "import signal, sys, json\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    if 'busy' in line:\n"
        "        signal.setitimer(signal.ITIMER_PROF, 0.2)\n"
        "        while True: pass\n"
        "    if 'asleep' in line: signal.pause()\n"
        "    print('true', flush=True)\n"
    )
    monkeypatch.setattr(symbolic, "PROGRAM", slow)
    worker = Worker()
    try:
        assert worker.ask("busy", "x") is None  # its own limit of processor time
        assert worker.ask("x", "x") is True
        monkeypatch.setattr(symbolic, "PATIENCE", 0.5)
        assert worker.ask("asleep", "x") is None  # the clock of the one that asks
        monkeypatch.undo()
        monkeypatch.setattr(symbolic, "PROGRAM", slow)
        assert worker.ask("x", "x") is True
    finally:
        worker.close()


def test_a_process_that_never_comes_up_is_not_tried_for_ever(tmp_path, monkeypatch):
    broken = tmp_path / "algebra.py"
    broken.write_text("raise SystemExit(1)\n")
    monkeypatch.setattr(symbolic, "PROGRAM", broken)
    worker = Worker()
    assert [worker.ask("x", "x") for _ in range(6)] == [None] * 6
    assert worker.starts == symbolic.MOST_FAILURES


def test_memory_is_limited_in_the_process():
    code = (
        "import runpy, io, sys\n"
        "sys.argv = ['algebra', '2']; sys.stdin = io.StringIO('')\n"
        f"runpy.run_path({os.fspath(symbolic.PROGRAM)!r}, run_name='__main__')\n"
        "try: bytearray(2 << 30)\n"
        "except MemoryError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["ready", "refused"]


def test_many_threads_ask_one_process():
    symbolic._asked.cache_clear()
    started = symbolic._worker.starts
    found = {}

    def ask(number):
        found[number] = same_value(f"{number}x+x", f"{number + 1}x"), same_value(f"{number}x", f"{number + 1}x")

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == dict.fromkeys(range(12), (True, False))
    assert symbolic._worker.starts - started <= 1


def test_a_forked_child_starts_a_process_of_its_own():
    code = """
        import os
        from cmat_graph.answers.symbolic import _worker, same_value
        assert same_value("x+x", "2x")
        mine = _worker._process.pid
        child = os.fork()
        if child == 0:
            fine = same_value("y+y", "2y") and _worker._process.pid != mine
            _worker.close()
            os._exit(0 if fine else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert same_value("z+z", "2z") and _worker._process.pid == mine
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_the_process_ends_with_the_one_that_asks():
    code = "from cmat_graph.answers import symbolic as s; s.same_value('x+x', '2x'); print(s._worker._process.pid)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)
    assert not done.stderr


def test_without_sympy_the_string_rules_decide():
    code = """
        import sys
        sys.modules["sympy"] = None
        from cmat_graph.answers import answer_kind, symbolic
        boxed = answer_kind("boxed")
        assert boxed.same(r"\\frac{1}{2}", "0.5") and boxed.same(r"\\dfrac12", "1/2")
        assert boxed.same("(1,2]", "( 1, 2 ]") and boxed.same("1 1/2", "1.5")
        assert not boxed.same(r"2\\sqrt{3}", r"\\sqrt{12}")
        assert symbolic._worker.starts == 0
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_comparing_imports_no_sympy_here():
    code = """
        import sys
        from cmat_graph.answers import answer_kind
        assert answer_kind("boxed").same(r"2\\sqrt{3}", r"\\sqrt{12}")
        assert "sympy" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
