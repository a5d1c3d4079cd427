"""The golden curves: five steps of every algorithm come out as they were stored, and no two methods look alike."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from stapo_core.algorithms import _COMPOSERS
from tests.stapo_core.golden import ALGORITHMS, departures, read_curve, read_rollouts, trace


@pytest.mark.parametrize("name", ALGORITHMS)
def test_five_steps_follow_the_golden_curve(name: str) -> None:
    assert departures(trace(ALGORITHMS[name], read_rollouts()), read_curve(name)) == []


def test_every_algorithm_has_a_golden_curve() -> None:
    assert {algorithm["kind"] for algorithm in ALGORITHMS.values()} == set(_COMPOSERS)


@pytest.mark.parametrize(("one", "other"), itertools.combinations(ALGORITHMS, 2))
def test_one_method_in_the_place_of_another_leaves_the_curve(one: str, other: str) -> None:
    assert departures(read_curve(one), read_curve(other)) != []


CHANGES: dict[str, dict[str, Any]] = {
    "stapo": {"entropy_quantile": 0.7},
    "grpo": {"clip_high": 0.22},
    "taco": {"strength": 0.85},
    "gspo": {"clip_low": 4e-4},
    "grpo-kl": {"kl_coefficient": 0.055},
    "entropy20": {"kept_share": 0.22},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_constant_that_is_a_tenth_off_leaves_the_curve(name: str) -> None:
    curve = trace(ALGORITHMS[name] | CHANGES[name], read_rollouts())

    assert departures(curve, read_curve(name)) != []
