from __future__ import annotations

import random
from typing import Any

import pytest

from stapo_core.data import hold_out, share_to_hold_out

ROWS = [{"prompt": f"{n}+1=", "answer": str(n)} for n in range(100)]


def test_every_row_stands_on_one_side_in_the_order_of_the_file() -> None:
    sides = hold_out(ROWS, 0.2, seed=1)
    assert (len(sides.train), len(sides.held_out)) == (80, 20)
    assert sorted(sides.train + sides.held_out) == list(range(100))
    assert sides.train == sorted(sides.train)
    assert sides.held_out == sorted(sides.held_out)


def test_the_seed_decides_and_the_order_of_the_rows_plays_no_part() -> None:
    shuffled = random.Random(0).sample(ROWS, len(ROWS))
    held_out = {ROWS[number]["prompt"] for number in hold_out(ROWS, 0.2, seed=1).held_out}
    assert {shuffled[number]["prompt"] for number in hold_out(shuffled, 0.2, seed=1).held_out} == held_out
    assert {ROWS[number]["prompt"] for number in hold_out(ROWS, 0.2, seed=2).held_out} != held_out


def test_rows_with_one_prompt_stay_together() -> None:
    rows = [*ROWS, *({"prompt": row["prompt"], "answer": "another"} for row in ROWS[:50])]
    sides = hold_out(rows, 0.3, seed=3)
    assert {rows[n]["prompt"] for n in sides.train}.isdisjoint(rows[n]["prompt"] for n in sides.held_out)
    assert len({rows[n]["prompt"] for n in sides.held_out}) == 30


def test_a_text_and_the_same_text_as_a_message_are_two_prompts() -> None:
    rows: list[dict[str, Any]] = [{"prompt": "a"}, {"prompt": [{"role": "user", "content": "a"}]}]
    assert [len(side) for side in hold_out(rows, 0.5, seed=0)] == [1, 1]


def test_at_least_one_prompt_is_held_out_and_one_is_left() -> None:
    assert [len(side) for side in hold_out(ROWS[:3], 0.01, seed=0)] == [2, 1]
    assert [len(side) for side in hold_out([ROWS[0]] * 9, 0.5, seed=0)] == [9, 0]
    assert [len(side) for side in hold_out(ROWS, 0.0, seed=0)] == [100, 0]


@pytest.mark.parametrize(
    ("asked", "num_rows", "has_file", "share"),
    [
        (None, 199, False, 0.0),
        (None, 200, False, 0.05),
        (None, 4000, False, 0.05),
        (None, 40_000, False, 0.005),  # at most 200
        (None, 40_000, True, 0.0),
        (0.0, 40_000, False, 0.0),
        (0.3, 10, False, 0.3),
    ],
)
def test_left_to_itself_a_run_holds_out_a_twentieth(
    asked: float | None, num_rows: int, has_file: bool, share: float
) -> None:
    assert share_to_hold_out(asked, num_rows, has_validation_file=has_file) == pytest.approx(share)
