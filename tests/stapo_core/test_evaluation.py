"""pass@k by counting."""

from __future__ import annotations

import itertools

import pytest

from stapo_core.evaluation import pass_at_k


@pytest.mark.parametrize(("right", "k"), [(0, 2), (1, 1), (2, 2), (3, 4), (5, 5)])
def test_pass_at_k_is_the_share_of_subsets_that_hold_a_right_answer(right: int, k: int) -> None:
    samples = [True] * right + [False] * (6 - right)
    subsets = list(itertools.combinations(samples, k))

    assert pass_at_k(6, right, k) == pytest.approx(sum(any(subset) for subset in subsets) / len(subsets))
