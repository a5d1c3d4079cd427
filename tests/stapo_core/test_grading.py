"""The soft overlong penalty by hand, and what could not be judged."""

from __future__ import annotations

import pytest

from stapo_core.grading import Overlong


@pytest.mark.parametrize(("num_tokens", "penalty"), [(10, 0.0), (80, 0.0), (90, -0.5), (100, -1.0)])
def test_the_penalty_falls_linearly_over_the_last_share(num_tokens: int, penalty: float) -> None:
    assert Overlong(max_tokens=100, share=0.2).penalty(num_tokens) == pytest.approx(penalty)


def test_without_a_share_nothing_is_taken() -> None:
    assert Overlong(max_tokens=100, share=0.0).penalty(100) == 0.0
