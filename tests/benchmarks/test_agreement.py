"""The comparisons with peers: what fails them, and that the rollouts given to verl reach every branch."""

from __future__ import annotations

import io
import math

import pytest
import torch
from rich.console import Console

from benchmarks.agreement import Agreement, relative, report
from benchmarks.oracles_verl import CASES, K3_CEILING, Rollouts, draw, given
from stapo_core.algorithms.surrogate import k3


@pytest.fixture(scope="module")
def rollouts() -> Rollouts:
    return draw()


def judge(*found: Agreement) -> tuple[int, str]:
    out = io.StringIO()
    return report(found, Console(file=out, width=160)), out.getvalue()


def test_the_relative_difference_is_the_norm_of_the_difference_over_the_norm_of_the_peers() -> None:
    assert relative(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0])) == pytest.approx(1 / 5)


def test_results_of_different_shapes_are_refused_where_they_would_broadcast() -> None:
    with pytest.raises(ValueError, match="do not compare"):
        relative(torch.ones(3), torch.ones(1))


def test_a_difference_above_the_tolerance_fails_and_one_below_it_does_not() -> None:
    assert judge(Agreement("loss", "a peer", 9e-6))[0] == 0
    assert judge(Agreement("loss", "a peer", 9e-6), Agreement("gradient", "a peer", 1.1e-5))[0] == 1


def test_a_difference_that_is_not_a_number_fails() -> None:
    assert judge(Agreement("loss", "a peer", math.nan))[0] == 1


def test_a_difference_of_definitions_is_shown_with_its_reason_and_not_judged() -> None:
    code, text = judge(Agreement("loss", "a peer", 0.5, "they clip, we do not."))
    assert code == 0
    assert "5.0e-01 (not judged)" in text
    assert "Not judged: loss: they clip, we do not." in text


@pytest.mark.parametrize("name", ["dapo", "grpo", "dr_grpo", "justrl", "gspo", "stapo"])
def test_ratios_leave_the_clip_on_both_sides_and_not_everywhere(rollouts: Rollouts, name: str) -> None:
    _, decision = rollouts.decisions[name]
    low, high = decision.objective.clipped_low, decision.objective.clipped_high
    assert low.any()
    assert high.any()
    assert (~(low | high)).float().mean() > 0.2


def test_the_second_clip_cuts_some_tokens_and_verls_is_out_of_reach_where_ours_has_none(rollouts: Rollouts) -> None:
    tokens, _ = rollouts.decisions["justrl"]
    ratios = (tokens.logprobs - tokens.old_logprobs).exp()
    assert ((ratios > 10.0) & (tokens.advantages < 0)).any()
    assert ratios.max() < min(case.ceiling for case in CASES if case.name != "justrl")


def test_stapo_silences_some_tokens_and_verl_is_told_which(rollouts: Rollouts) -> None:
    kept = given(rollouts)["stapo.kept"]
    assert 0 < (kept == 0).sum() < 0.1 * len(kept)


def test_only_the_far_reference_passes_the_ceiling_of_verls_k3(rollouts: Rollouts) -> None:
    tokens = rollouts.tokens
    assert k3(tokens.logprobs, tokens).max() < K3_CEILING
    difference = rollouts.far_reference_logprobs - tokens.logprobs
    assert (difference.exp() - difference - 1.0).max() > K3_CEILING


def test_the_same_seed_draws_the_same_rollouts() -> None:
    once, again, other = given(draw(1)), given(draw(1)), given(draw(2))
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["rewards"], other["rewards"])
