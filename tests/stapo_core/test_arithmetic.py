from __future__ import annotations

import random

from stapo_core.arithmetic import ALPHABET, Problem, draw_problems, spoil


def test_a_solution_carries_from_the_right() -> None:
    assert Problem(347, 586).prompt == "347+586="
    assert Problem(347, 586).solution == "7+6=13,4+8+1=13,3+5+1=9;933"


def test_a_solution_without_carries_has_two_terms_a_column() -> None:
    assert Problem(123, 456).solution == "3+6=9,2+5=7,1+4=5;579"


def test_a_carry_out_of_the_last_column_leads_the_answer() -> None:
    assert Problem(999, 999).solution == "9+9=18,9+9+1=19,9+9+1=19;1998"


def test_drawn_problems_are_distinct_and_avoid_what_they_must() -> None:
    held_out = frozenset(draw_problems(random.Random(1), 500))
    drawn = draw_problems(random.Random(1), 500, avoid=held_out)
    assert len(set(drawn)) == 500
    assert not held_out & set(drawn)


def test_spoiling_changes_one_character_to_another_of_the_alphabet() -> None:
    text = Problem(347, 586).solution
    for seed in range(200):
        spoilt = spoil(random.Random(seed), text)
        assert sum(old != new for old, new in zip(text, spoilt, strict=True)) == 1
        assert set(spoilt) <= set(ALPHABET)
