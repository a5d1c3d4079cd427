"""The math grader on more than two hundred pairs written by hand, with what it is known to get wrong beside them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stapo_core.config import MathGrader
from stapo_core.graders.mathematics import MathScorer
from stapo_core.graders.score import Pair, Score
from tests.stapo_core.graders.math_pairs import EQUAL, KNOWN_LIMITS, UNEQUAL, Pairs


@pytest.fixture(scope="module")
def scorer() -> Iterator[MathScorer]:
    scorer = MathScorer(MathGrader(type="math", reference="{{item.answer}}", timeout_s=20.0))
    yield scorer
    scorer.close()


def departures(scorer: MathScorer, pairs: Pairs, expected: float) -> list[tuple[str, tuple[str, str], Score]]:
    asked = [(area, pair) for area, listed in pairs.items() for pair in listed]
    scores = scorer.score([Pair(f"Hence \\boxed{{{answer}}}.", reference) for _, (answer, reference) in asked])
    return [(*each, score) for each, score in zip(asked, scores, strict=True) if score != Score(expected)]


def test_equivalent_answers_are_rewarded(scorer: MathScorer) -> None:
    assert departures(scorer, EQUAL, 1.0) == []


def test_answers_that_differ_are_not_rewarded(scorer: MathScorer) -> None:
    assert departures(scorer, UNEQUAL, 0.0) == []


def test_what_is_listed_as_a_limit_still_is_one(scorer: MathScorer) -> None:
    """When one of these comes right it moves up into the list of equals."""
    assert departures(scorer, KNOWN_LIMITS, 0.0) == []


def test_the_list_is_long_enough_and_no_pair_stands_twice() -> None:
    both = [pair for table in (EQUAL, UNEQUAL) for listed in table.values() for pair in listed]
    assert len(both) >= 200
    assert len(set(both)) == len(both)


def test_equality_holds_both_ways_round_for_plain_numbers(scorer: MathScorer) -> None:
    plain = {area: [(b, a) for a, b in EQUAL[area]] for area in ("fractions", "radicals")}
    assert departures(scorer, plain, 1.0) == []


def test_an_expression_that_hangs_takes_no_result_from_its_neighbours() -> None:
    """Every third pair of one batch hangs; the others keep the rewards that they have without it."""
    scorer = MathScorer(MathGrader(type="math", reference="{{item.answer}}", timeout_s=1.0))
    honest = [Pair(rf"\boxed{{{n}/2}}", str(n / 2)) for n in range(1, 9)]
    hanging = [Pair(rf"\boxed{{9^{{9^{{9^{{{n}}}}}}}}}", "7") for n in range(7, 10)]
    batch = [*honest[:2], hanging[0], *honest[2:4], hanging[1], *honest[4:6], hanging[2], *honest[6:]]
    try:
        scorer.score(honest[:2])  # both children are up
        scores = dict(zip(batch, scorer.score(batch), strict=True))
    finally:
        scorer.close()
    assert [scores[pair] for pair in honest] == [Score(1.0)] * 8
    assert {scores[pair] for pair in hanging} == {Score(0.0, "timeout")}
