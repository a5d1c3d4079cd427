from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stapo_core.rollout import Limits
from stapo_core.rollout.drawing import UniformStreams, draw_tokens, rule_out

LOGITS = torch.tensor([1.0, 0.0, -1.0, 2.0, -math.inf])


def test_each_token_owns_its_stretch_of_the_unit_interval() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(6, 3)
    uniforms = torch.tensor([0.0, 0.199, 0.201, 0.699, 0.701, 1.0 - 2.0**-53], dtype=torch.float64)
    assert draw_tokens(logits, 1.0, uniforms).token_ids.tolist() == [0, 0, 1, 1, 2, 2]


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    logits = torch.tensor([[-math.inf, 0.0, -math.inf, -math.inf]]).expand(3, 4)
    uniforms = torch.tensor([0.0, 0.5, 1.0 - 2.0**-53], dtype=torch.float64)
    drawn = draw_tokens(logits, 1.0, uniforms)
    assert drawn.token_ids.tolist() == [1, 1, 1]
    assert drawn.logprobs.tolist() == [0.0, 0.0, 0.0]
    assert drawn.entropies.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_frequencies_follow_the_softmax_at_the_temperature(temperature: float) -> None:
    num_draws = 40_000
    uniforms = torch.from_numpy(np.random.default_rng(5).random(num_draws))
    drawn = draw_tokens(LOGITS.expand(num_draws, -1), temperature, uniforms)
    expected = torch.softmax(LOGITS.double() / temperature, dim=-1)
    counts = torch.bincount(drawn.token_ids, minlength=5).double()
    possible = expected > 0
    assert counts[~possible].sum() == 0
    chi_squared = ((counts - num_draws * expected)[possible] ** 2 / (num_draws * expected[possible])).sum()
    assert chi_squared < 16.27  # the 0.1 % point at 3 degrees of freedom


def test_log_probs_and_entropies_are_in_nats_at_the_temperature() -> None:
    logits = torch.tensor([[0.0, math.log(4.0)]])
    drawn = draw_tokens(logits, 2.0, torch.tensor([0.9], dtype=torch.float64))
    # exp(ln 4 / 2) = 2, so the probabilities are 1/3 and 2/3.
    assert drawn.token_ids.tolist() == [1]
    assert drawn.logprobs.item() == pytest.approx(math.log(2 / 3), abs=1e-6)
    assert drawn.entropies.item() == pytest.approx(math.log(3) - 2 / 3 * math.log(2), abs=1e-6)


def test_half_precision_logits_are_summed_in_single() -> None:
    logits = torch.randn(4, 3000, generator=torch.Generator().manual_seed(0)).bfloat16()
    drawn = draw_tokens(logits, 1.0, torch.full((4,), 0.5, dtype=torch.float64))
    exact = torch.log_softmax(logits.double(), dim=-1)
    assert drawn.logprobs.dtype == torch.float32
    assert torch.allclose(drawn.entropies.double(), -(exact.exp() * exact).sum(-1), atol=1e-5)


def test_a_stream_follows_from_its_seed_alone() -> None:
    alone, among = UniformStreams([7]), UniformStreams([1, 7, 2])
    for step in range(600):  # past two refills of its block
        rows = [0, 1, 2] if step < 100 else [1]
        assert among.draw(rows)[rows.index(1)] == alone.draw([0])[0]


def test_streams_of_unlike_seeds_share_nothing() -> None:
    numbers = torch.stack([UniformStreams([1, 2]).draw([0, 1]) for _ in range(1)])
    assert len(set(numbers.flatten().tolist())) == 2
    assert bool(((numbers >= 0) & (numbers < 1)).all())


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        (Limits(), [0, 1, 2, 3]),
        (Limits(top_k=1), [0]),
        (Limits(top_k=3), [0, 1, 2]),
        (Limits(top_k=9), [0, 1, 2, 3]),
        (Limits(top_p=0.4), [0]),
        (Limits(top_p=0.51), [0, 1]),
        (Limits(top_p=0.85), [0, 1, 2]),
        (Limits(top_p=1e-9), [0]),
        (Limits(min_p=0.61), [0]),
        (Limits(min_p=0.59), [0, 1]),
        (Limits(min_p=1.0), [0]),
        # Of the two likeliest, 5/8 is the first one's probability.
        (Limits(top_k=2, top_p=0.62), [0]),
        (Limits(top_k=2, top_p=0.63), [0, 1]),
    ],
)
def test_limits_keep_the_likeliest(limits: Limits, kept: list[int]) -> None:
    p = torch.tensor([0.15, 0.5, 0.05, 0.3])
    by_rank = [1, 3, 0, 2]
    limited = rule_out(torch.log(p)[None] * 2.0, 2.0, limits)
    assert torch.isfinite(limited)[0].nonzero().flatten().tolist() == sorted(by_rank[rank] for rank in kept)


def test_what_is_kept_is_drawn_in_proportion_and_its_log_prob_is_that_of_the_draw() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(4, 3)
    uniforms = torch.tensor([0.0, 0.62, 0.63, 0.999], dtype=torch.float64)
    drawn = draw_tokens(rule_out(logits, 1.0, Limits(top_k=2)), 1.0, uniforms)
    assert drawn.token_ids.tolist() == [1, 1, 2, 2]
    assert drawn.logprobs.exp().tolist() == pytest.approx([0.625, 0.625, 0.375, 0.375], abs=1e-6)


@pytest.mark.parametrize("bad", [{"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 1.1}])
def test_limits_that_keep_nothing_or_make_no_sense_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="top_k counts from 1"):
        Limits(**bad)  # type: ignore[arg-type]
