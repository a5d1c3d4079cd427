"""The theory's quantities against autograd, finite differences and counting by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from stapo_core.algorithms.selection import Memory, SilenceSpurious
from stapo_core.batch import TokenRecord, Tokens, TokenStats
from stapo_core.diagnostics import diagnose, entropy_changes, gradient_bounds, gradient_norms, join

VOCABULARY = 30


def entropy(logits: Tensor) -> Tensor:
    log_p = torch.log_softmax(logits, dim=-1)
    return -(log_p.exp() * log_p).sum(-1)


def scored(num_tokens: int = 200, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, TokenStats, Tensor]:
    """Random logits of very different sharpness, tokens, their statistics, and slopes of both signs."""
    source = torch.Generator().manual_seed(0)
    sharpness = torch.logspace(-2, 1.3, num_tokens)[:, None]
    logits = (sharpness * torch.randn(num_tokens, VOCABULARY, generator=source)).to(dtype)
    targets = torch.randint(0, VOCABULARY, (num_tokens,), generator=source)
    log_p = torch.log_softmax(logits, dim=1)
    p = log_p.exp()
    stats = TokenStats(
        logprobs=log_p.gather(1, targets[:, None]).squeeze(1),
        entropies=entropy(logits),
        sum_squares=p.square().sum(1),
        sum_squares_log=(p.square() * log_p).sum(1),
    )
    return logits, targets, stats, torch.randn(num_tokens, generator=source).to(dtype)


def test_the_gradient_norm_is_that_of_autograd_at_the_logits() -> None:
    logits, targets, stats, slopes = scored()
    leaf = logits.clone().requires_grad_()
    torch.autograd.backward((slopes * torch.log_softmax(leaf, dim=1).gather(1, targets[:, None]).squeeze(1)).sum())
    assert leaf.grad is not None

    assert torch.allclose(gradient_norms(stats, slopes), leaf.grad.norm(dim=1), rtol=1e-5, atol=1e-6)


def test_the_squared_norm_lies_between_its_bounds() -> None:
    _, _, stats, slopes = scored()
    lower, upper = gradient_bounds(stats, slopes, VOCABULARY)
    squared = gradient_norms(stats, slopes).square()

    assert bool((lower <= squared + 1e-5).all())
    assert bool((squared <= upper + 1e-5).all())


def test_the_entropy_change_is_the_derivative_of_entropy_along_the_gradient_step() -> None:
    logits, targets, stats, slopes = scored(dtype=torch.float64)
    onehot = torch.nn.functional.one_hot(targets, VOCABULARY)
    step = slopes[:, None] * (onehot - torch.softmax(logits, dim=1))
    tiny = 1e-6
    expected = (entropy(logits + tiny * step) - entropy(logits - tiny * step)) / (2 * tiny)

    assert torch.allclose(entropy_changes(stats, slopes), expected, atol=1e-6)


def make_record() -> TokenRecord:
    """Six tokens in three responses; tau_p = 0.01, tau_h = 1.0. The first is silenced."""
    p = torch.tensor([0.001, 0.002, 0.5, 0.5, 0.004, 0.9])
    entropies = torch.tensor([0.5, 2.0, 0.5, 2.0, 0.5, 0.1])
    advantages = torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0, 0.0])
    tokens = Tokens(
        advantages=advantages,
        logprobs=p.log(),
        old_logprobs=p.log() - torch.tensor([0.0, 0.0, 0.4, 0.0, 0.0, 0.0]),
        sampler_logprobs=p.log() - torch.tensor([0.1, 0.0, 0.4, 0.0, 0.0, 3.0]),
        entropies=entropies,
        rows=torch.tensor([0, 0, 1, 1, 1, 2]),
        lengths=torch.tensor([2, 3, 1]),
    )
    is_scored = torch.tensor([True] * 5 + [False])
    return TokenRecord(
        tokens=tokens,
        stats=TokenStats(p.log(), entropies, p.square(), p.square() * p.log()),
        weights=torch.tensor([0.0, 1, 1, 1, 1, 1]),
        slopes=torch.tensor([1.0, 1.0, 0.0, 1.0, -1.0, 0.0]),
        clipped_low=torch.zeros(6, dtype=torch.bool),
        clipped_high=torch.tensor([False, False, True, False, False, False]),
        is_scored=is_scored,
        has_old=is_scored,
        tau_p=torch.full((6,), 0.01),
        tau_h=torch.full((6,), 1.0),
    )


def test_counts_shares_and_means_of_six_tokens_are_those_counted_by_hand() -> None:
    metrics = diagnose(make_record())

    assert metrics["mask/tokens"] == 1
    assert metrics["mask/ppm"] == pytest.approx(1e6 / 6)
    assert metrics["mask/candidates"] == 2
    assert metrics["mask/responses_touched"] == 1
    assert metrics["policy/entropy"] == pytest.approx(5.6 / 6)
    assert metrics["policy/clip_high"] == pytest.approx(1 / 6)
    assert metrics["policy/clip_low"] == 0
    assert metrics["policy/ratio_max"] == pytest.approx(math.exp(0.4))
    assert [metrics[f"funnel/{n}"] for n in ("tokens", "positive_advantage", "low_p", "low_p_low_h")] == [6, 4, 2, 1]
    assert metrics["quadrant/low_p_low_h_pos/count"] == 1
    assert metrics["quadrant/low_p_low_h_pos/p"] == pytest.approx(0.001)
    assert metrics["quadrant/low_p_low_h_neg/entropy"] == pytest.approx(0.5)
    assert metrics["quadrant/high_p_high_h_pos/grad_norm"] == pytest.approx(math.sqrt(1 - 1 + 0.25))
    assert metrics["quadrant/high_p_low_h_neg/count"] == 0
    assert metrics["quadrant/high_p_low_h_neg/p"] is None
    assert metrics["sampler/logp_diff_max"] == pytest.approx(0.1)
    assert metrics["sampler/logp_diff_mean"] == pytest.approx(0.1 / 5)
    assert metrics["sampler/kl"] == pytest.approx((math.exp(0.1) - 1 - 0.1) / 5, rel=1e-4)
    shares = {key: value for key, value in metrics.items() if key.startswith("sampler/ratio_hist/") and value}
    assert shares == {
        "sampler/ratio_hist/0.95_to_1.05": pytest.approx(4 / 5),
        "sampler/ratio_hist/1.05_to_1.25": pytest.approx(1 / 5),  # e^0.1; the last token was not scored
    }
    squares = [1 - 0.002 + 1e-6, 1 - 0.004 + 4e-6, 0.25, 1 - 0.008 + 1.6e-5]
    assert metrics["mask/grad_share"] == pytest.approx(squares[0] / sum(squares), rel=1e-5)
    share = metrics["mask/entropy_change_share"]
    assert share is not None
    assert 0 < share < 1


def test_a_mask_on_bad_responses_has_its_candidates_among_these() -> None:
    assert diagnose(make_record(), -1)["mask/candidates"] == 1  # the fifth token alone: A < 0 and p = 0.004
    selected = SilenceSpurious(0.01, 0.75, sign=-1).select(make_record().tokens, Memory())
    assert selected.sign == -1


def test_joined_mini_batches_keep_their_responses_apart() -> None:
    joined = join([make_record(), make_record()])

    assert joined.tokens.rows.tolist() == [0, 0, 1, 1, 1, 2, 3, 3, 4, 4, 4, 5]
    assert diagnose(joined)["mask/responses_touched"] == 2


def test_without_a_threshold_no_token_counts_as_certain() -> None:
    record = make_record()
    record = replace(record, tau_h=torch.full((6,), math.nan))

    assert diagnose(record)["funnel/low_p_low_h"] == 0
