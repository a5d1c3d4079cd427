"""The math grader with its real child processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stapo_core.config import MathGrader
from stapo_core.graders.mathematics import MathScorer, answer_of
from stapo_core.graders.score import Pair, Score

EQUAL = [
    (r"\frac{1}{2}", "0.5"),
    ("1/2", r"\frac{1}{2}"),
    (r"\dfrac12", "1/2"),
    ("2^{10}", "1024"),
    (r"\sqrt{8}", r"2\sqrt{2}"),
    (r"\sqrt[3]{27}", "3"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    ("a+b", "b+a"),
    ("1,234", "1234"),
    ("3.0", "3"),
    ("7 ", "7"),
    ("-7", "$-7$"),
    (r"10^{-2}", "0.01"),
    (r"50\%", "0.5"),
    (r"\{1,2,3\}", r"\{3,2,1\}"),
    ("(1,2)", r"\left(1, 2\right)"),
    (r"(-\infty, 3]", r"(-\infty,3]"),
    (r"2\pi", r"\pi\cdot 2"),
    (r"\frac{\pi}{2}", r"0.5\pi"),
    ("x=5", "5"),
    ("5", "x=5"),
    ("y=2x+1", "2x+1"),
    (r"\text{(A)}", "A"),
    (r"\sin^2 x+\cos^2 x", "1"),
    (r"\log_2 8", "3"),
    (r"\ln e", "1"),
    (r"\binom{5}{2}", "10"),
    ("5!", "120"),
    (r"90^\circ", "90"),
    ("3+4i", "4i+3"),
    ("x>2", "2<x"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1 & 2\\ 3 & 4\end{pmatrix}"),
    (r"10\text{ cm}", "10"),
    (r"\$18", "18"),
    (r"1\frac{1}{2}", "1.5"),
    (r"\lfloor 2.7\rfloor", "2"),
    ("1:2", "1/2"),
]

UNEQUAL = [
    ("1/2", "1/3"),
    ("2", "-2"),
    (r"\sqrt{2}", "1.41"),
    ("0.333", r"\frac{1}{3}"),
    (r"\pi", "3.14"),
    ("x+1", "x-1"),
    ("x^2", "x"),
    ("(1,2)", "(2,1)"),
    ("[0,1)", "[0,1]"),
    (r"\{1,2\}", r"\{1,2,3\}"),
    ("x>2", r"x\ge 2"),
    ("100", "10"),
    ("12", "21"),
    ("1,2", "12"),
    ("1000", "1"),
    ("2^{10}", "1025"),
    ("A", "B"),
    ("3i", "3"),
    (r"\sin x", r"\cos x"),
    (r"\infty", r"-\infty"),
    ("hello", "5"),
    ("", "5"),
]


@pytest.fixture(scope="module")
def scorer() -> Iterator[MathScorer]:
    scorer = MathScorer(MathGrader(type="math", reference="{{item.answer}}", timeout_s=20.0))
    yield scorer
    scorer.close()


def boxed(pairs: list[tuple[str, str]]) -> list[Pair]:
    return [Pair(f"Hence \\boxed{{{answer}}}.", reference) for answer, reference in pairs]


def test_equivalent_answers_are_rewarded(scorer: MathScorer) -> None:
    scores = scorer.score(boxed(EQUAL))
    assert [pair for pair, score in zip(EQUAL, scores, strict=True) if score != Score(1.0)] == []


def test_answers_that_differ_are_not_rewarded(scorer: MathScorer) -> None:
    scores = scorer.score(boxed(UNEQUAL))
    assert [pair for pair, score in zip(UNEQUAL, scores, strict=True) if score != Score(0.0)] == []


def test_without_a_box_the_last_expression_counts(scorer: MathScorer) -> None:
    texts = [
        ("The answer is 42.", "42", 1.0),
        (r"so we get $x = \frac{3}{4}$", "3/4", 1.0),
        ("1+1=2\nThus 2+2=4", "4", 1.0),
        ("I think 3, then 4", "3", 0.0),
        ("it cannot be said", "4", 0.0),
    ]
    scores = scorer.score([Pair(text, reference) for text, reference, _ in texts])
    assert [score.value for score in scores] == [reward for _, _, reward in texts]


def test_the_last_box_counts(scorer: MathScorer) -> None:
    first, last = scorer.score([Pair(r"\boxed{3} no, \boxed{4}", "3"), Pair(r"\boxed{3} no, \boxed{4}", "8/2")])
    assert (first.value, last.value) == (0.0, 1.0)


def test_a_box_may_hold_braces_and_a_reference_a_box() -> None:
    assert answer_of(r"\boxed{1} then \boxed{\frac{a}{b}} end") == r"\boxed{\frac{a}{b}}"


def test_a_reference_that_cannot_be_read_is_counted_as_an_error(scorer: MathScorer) -> None:
    (score,) = scorer.score([Pair(r"\boxed{1}", " ")])
    assert score == Score(0.0, "reference_unreadable")


HANGING = [
    r"9^{9^{9^{9}}}",
    "99999999!",
    r"\sum_{k=1}^{10^{12}} \frac{1}{k^3+k}",
    r"(x+y+z)^{400}",
    r"\frac{1}{" * 300,
    "x^{" * 200 + "2" + "}" * 200,
]


def test_a_hanging_expression_costs_its_deadline_and_nothing_else() -> None:
    scorer = MathScorer(MathGrader(type="math", reference="{{item.answer}}", timeout_s=1.0))
    try:
        scorer.score([Pair(r"\boxed{4}", "8/2"), Pair(r"\boxed{5}", "10/2")])  # both children are up
        honest = [Pair(rf"\boxed{{{n}}}", f"{2 * n}/2") for n in range(1, 9)]
        start = time.monotonic()
        scores = scorer.score([Pair(rf"\boxed{{{HANGING[0]}}}", "7"), *honest])
        assert time.monotonic() - start < 8.0  # its second, and what a busy machine adds
        assert scores == [Score(0.0, "timeout"), *[Score(1.0)] * 8]
    finally:
        scorer.close()


def test_hostile_expressions_end_and_the_next_is_judged_rightly() -> None:
    scorer = MathScorer(MathGrader(type="math", reference="{{item.answer}}", timeout_s=1.0))
    hostile = [Pair(rf"\boxed{{{text}}}", "7") for text in [*HANGING[3:], "(" * 500, "1" * 3000, "9999**99999**99"]]
    try:
        scores = scorer.score(hostile)
        assert {score.value for score in scores} == {0.0}
        assert sum(score.error == "timeout" for score in scores) >= 1
        assert scorer.score([Pair(r"\boxed{2}", "4/2")]) == [Score(1.0)]
    finally:
        scorer.close()


def test_a_child_that_is_killed_is_replaced() -> None:
    others = children_of(os.getpid())
    scorer = MathScorer(MathGrader(type="math", reference="{{item.answer}}", timeout_s=20.0))
    try:
        assert scorer.score([Pair(r"\boxed{2}", "4/2")]) == [Score(1.0)]
        (child,) = set(children_of(os.getpid())) - set(others)
        os.kill(child, signal.SIGKILL)
        assert scorer.score([Pair(r"\boxed{3}", "6/2")]) == [Score(1.0)]
    finally:
        scorer.close()
    assert children_of(os.getpid()) == others


def test_the_children_die_with_their_parent_even_while_they_hang() -> None:
    program = (
        "from stapo_core.config import MathGrader\n"
        "from stapo_core.graders.mathematics import MathScorer\n"
        "from stapo_core.graders.score import Pair\n"
        "scorer = MathScorer(MathGrader(type='math', reference='x', timeout_s=60.0))\n"
        "scorer.score([Pair(chr(92) + 'boxed{2}', '4/2')])\n"
        "print('up', flush=True)\n"
        "scorer.score([Pair(chr(92) + 'boxed{9^{9^{9^{9}}}}', '7')])\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        time.sleep(0.5)
        children = children_of(parent.pid)
        assert children
        parent.kill()
    deadline = time.monotonic() + 5.0
    while any(is_running(child) for child in children):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_child_never_loads_torch() -> None:
    program = "import sys, stapo_core.graders.math_child; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def children_of(pid: int) -> list[int]:
    """Math children below a process, read from /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rsplit(")", 1)[1].split()[1])
            command = (stat.parent / "cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if parent == pid and b"math_child" in command:
            found.append(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
