"""Judging that begins before it is asked for: nothing is judged twice, nothing is lost, closing waits for nobody."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence

import pytest

from stapo_core.config import MathGrader
from stapo_core.graders.ahead import Ahead
from stapo_core.graders.mathematics import MathScorer
from stapo_core.graders.score import Pair, Score


class Counting:
    """Scores a text by its length, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Pair] = []
        self.threads: set[int] = set()

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        self.asked += pairs
        self.threads.add(threading.get_ident())
        return [Score(float(len(pair.text))) for pair in pairs]

    def close(self) -> None:
        """Holds nothing."""


def pairs(*lengths: int) -> list[Pair]:
    return [Pair("x" * length, "") for length in lengths]


def test_what_was_begun_is_judged_once_and_the_order_is_that_of_the_question() -> None:
    scorer = Counting()
    ahead = Ahead(scorer)
    for pair in pairs(3, 1, 3):
        ahead.begin([pair])
    assert [score.value for score in ahead.score(pairs(1, 2, 3, 3))] == [1.0, 2.0, 3.0, 3.0]
    assert sorted(len(pair.text) for pair in scorer.asked) == [1, 2, 3]
    assert threading.get_ident() not in scorer.threads
    ahead.close()


def test_what_is_being_judged_is_not_asked_for_again() -> None:
    is_judging, may_go_on = threading.Event(), threading.Event()

    class Slow(Counting):
        def score(self, pairs: Sequence[Pair]) -> list[Score]:
            is_judging.set()
            may_go_on.wait(30.0)
            return super().score(pairs)

    scorer = Slow()
    ahead = Ahead(scorer)
    ahead.begin(pairs(1))
    is_judging.wait(30.0)
    ahead.begin(pairs(1, 2))
    may_go_on.set()
    assert [score.value for score in ahead.score(pairs(2, 1))] == [2.0, 1.0]
    assert scorer.asked == pairs(1, 2)
    ahead.close()


def test_scores_do_not_depend_on_when_the_judging_begins() -> None:
    seed = random.randrange(2**32)
    print("seed", seed)  # noqa: T201  # to play a failure again
    source = random.Random(seed)
    ahead = Ahead(Counting())
    for _ in range(300):
        asked = pairs(*(source.randrange(9) for _ in range(source.randrange(1, 9))))
        for pair in source.sample(asked, source.randrange(len(asked) + 1)):
            ahead.begin([pair])
            time.sleep(source.choice([0.0, 0.0, 0.0, 1e-4]))
        assert [score.value for score in ahead.score(asked)] == [float(len(pair.text)) for pair in asked]
    ahead.close()


def test_a_scorer_that_breaks_is_heard_where_the_scores_are_asked_for() -> None:
    class Broken(Counting):
        def score(self, pairs: Sequence[Pair]) -> list[Score]:
            raise RuntimeError("no child")

    ahead = Ahead(Broken())
    ahead.begin(pairs(1))
    with pytest.raises(RuntimeError, match="no child"):
        ahead.score(pairs(1))
    ahead.close()


def test_closing_waits_for_no_deadline() -> None:
    ahead = Ahead(MathScorer(MathGrader(type="math", reference="{{item.answer}}", timeout_s=60.0)))
    ahead.score([Pair(r"\boxed{2/4}", "1/2")])  # a child is up
    ahead.begin([Pair(r"\boxed{9^{9^{9^{9}}}}", str(n)) for n in range(8)])
    time.sleep(0.2)
    started = time.monotonic()
    ahead.close()
    assert time.monotonic() - started < 30.0  # half of one deadline; eight wait
