"""Advantages, surrogates and aggregations worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from stapo_core.algorithms import advantage
from stapo_core.algorithms.aggregation import ConstantLength, SequenceMean, SurvivingMean, TokenMean
from stapo_core.algorithms.surrogate import (
    Clipped,
    DualClipped,
    SequenceClipped,
    Surrogate,
    WeightClipped,
    WithImportance,
    WithKl,
)
from stapo_core.batch import Tokens


def tokens(ratios: list[float], advantages: list[float], lengths: list[int]) -> Tokens:
    """Tokens with log p = ln ratio and old log p = 0."""
    number = len(ratios)
    return Tokens(
        advantages=torch.tensor(advantages),
        logprobs=torch.tensor(ratios).log(),
        old_logprobs=torch.zeros(number),
        sampler_logprobs=torch.zeros(number),
        entropies=torch.ones(number),
        rows=torch.arange(len(lengths)).repeat_interleave(torch.tensor(lengths)),
        lengths=torch.tensor(lengths),
    )


def values_and_slopes(surrogate: Surrogate, batch: Tokens) -> tuple[list[float], list[float]]:
    leaf = batch.logprobs.clone().requires_grad_()
    objective = surrogate(leaf, batch)
    (slopes,) = torch.autograd.grad(objective.values.sum(), leaf)
    return objective.values.tolist(), slopes.tolist()


def test_seven_right_of_eight_give_the_advantage_that_the_paper_prints() -> None:
    rewards = torch.tensor([[1.0] * 7 + [0.0], [1.0] + [0.0] * 7])

    result = advantage.normalized(rewards)

    assert result[0, 0].item() == pytest.approx(0.35, abs=0.005)
    assert result[1, 0].item() == pytest.approx(2.47, abs=0.005)


def test_a_group_of_equal_rewards_has_an_advantage_of_exactly_zero() -> None:
    rewards = torch.tensor([[0.1, 0.1, 0.1], [0.0, 0.3, 0.6]])

    assert advantage.normalized(rewards)[0].tolist() == [0, 0, 0]
    assert advantage.centred(rewards)[0].tolist() == [0, 0, 0]
    assert advantage.centred(rewards)[1].tolist() == pytest.approx([-0.3, 0, 0.3])


def test_the_clip_cuts_the_gradient_on_the_side_where_the_objective_would_grow() -> None:
    batch = tokens([1.5, 0.5, 1.5, 0.5, 1.1], [2.0, 2.0, -2.0, -2.0, 2.0], [5])

    values, slopes = values_and_slopes(Clipped(0.2, 0.28), batch)

    assert values == pytest.approx([2.56, 1.0, -3.0, -1.6, 2.2])
    assert slopes == pytest.approx([0, 1.0, -3.0, 0, 2.2])


def test_the_dual_clip_bounds_the_loss_of_a_bad_token() -> None:
    batch = tokens([20.0, 5.0], [-1.0, -1.0], [2])

    values, slopes = values_and_slopes(DualClipped(0.2, 0.28, 10.0), batch)

    assert values == pytest.approx([-10.0, -5.0])
    assert slopes == pytest.approx([0, -5.0])


def test_a_sequence_ratio_is_the_geometric_mean_and_each_token_carries_it() -> None:
    batch = tokens([1.21, 1.0, 0.5], [1.0, 1.0, -1.0], [2, 1])

    values, slopes = values_and_slopes(SequenceClipped(0.2, 0.2), batch)

    assert values == pytest.approx([1.1, 1.1, -0.8])
    assert slopes == pytest.approx([1.1, 1.1, 0])


def test_a_clipped_weight_keeps_every_gradient() -> None:
    batch = tokens([3.0, 0.1], [2.0, -1.0], [2])

    values, slopes = values_and_slopes(WeightClipped(0.2), batch)

    assert values == pytest.approx([1.2 * 2 * math.log(3), -0.1 * math.log(0.1)])
    assert slopes == pytest.approx([2.4, -0.1])


def test_k3_is_zero_where_policy_and_reference_agree_and_pulls_back_elsewhere() -> None:
    batch = tokens([1.0, 2.0], [0.0, 0.0], [2])
    batch = Tokens(**{name: getattr(batch, name) for name in Tokens.__slots__[:-1]}, reference_logprobs=torch.zeros(2))

    values, slopes = values_and_slopes(WithKl(Clipped(0.2, 0.2), 0.5), batch)

    # d = -ln 2: e^d - d - 1 = 0.5 + 0.6931 - 1 = 0.1931; slope of the penalty 1 - e^d = 0.5
    assert values == pytest.approx([0.0, -0.5 * 0.19315], abs=1e-5)
    assert slopes == pytest.approx([0.0, -0.25], abs=1e-6)


def test_importance_weights_are_cut_at_the_cap_and_an_unknown_one_is_1() -> None:
    batch = tokens([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [3])
    sampler = torch.tensor([-math.log(5.0), math.log(2.0), math.nan])
    batch = Tokens(
        **{n: getattr(batch, n) for n in Tokens.__slots__ if n != "sampler_logprobs"}, sampler_logprobs=sampler
    )

    values, _ = values_and_slopes(WithImportance(Clipped(0.2, 0.2), 2.0), batch)

    assert values == pytest.approx([2.0, 0.5, 1.0])


def test_each_aggregation_divides_by_what_its_name_says() -> None:
    batch = tokens([1.0] * 4, [1.0] * 4, [1, 3])
    weights = torch.tensor([1.0, 0.0, 1.0, 1.0])

    assert SurvivingMean().denominator(batch, weights) == 3
    assert TokenMean().denominator(batch, weights) == 4
    assert SequenceMean().denominator(batch, weights) == 2
    assert SequenceMean().scale(batch).tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1 / 3])
    assert ConstantLength(50).denominator(batch, weights) == 100
