"""S2T by its properties and by hand; the ablations by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stapo_core.algorithms.selection import (
    AllTokens,
    KeepUncertain,
    Memory,
    SilenceAtRandom,
    SilenceRare,
    SilenceSpurious,
    SilenceUncertain,
    SoftenSurprising,
    SteerTauP,
    quantile,
)
from stapo_core.batch import Tokens


def tokens(rows: list[tuple[float, float, float]]) -> Tokens:
    """Tokens from (A, p, H); each is a response of its own."""
    advantages, p, entropies = (torch.tensor(column) for column in zip(*rows, strict=True))
    number = len(rows)
    return Tokens(
        advantages=advantages,
        logprobs=p.log(),
        old_logprobs=p.log(),
        sampler_logprobs=p.log(),
        entropies=entropies,
        rows=torch.arange(number),
        lengths=torch.ones(number, dtype=torch.int64),
    )


TOKEN = st.tuples(
    st.sampled_from([-1.0, 0.0, 0.5, 2.0]),
    st.floats(2**-16, 1.0, width=32),
    st.floats(0.0, 5.0, width=32),
)
TOKENS = st.lists(TOKEN, min_size=1, max_size=40).map(tokens)
SCOPE = st.sampled_from(["candidates", "all_tokens"])


def weights(selection: Any, given_tokens: Tokens) -> list[float]:
    chosen: list[float] = selection.select(given_tokens, Memory()).weights.tolist()
    return chosen


@settings(deadline=None)
@given(TOKENS, SCOPE)
def test_a_token_is_silenced_iff_all_three_conditions_hold(batch: Tokens, scope: Any) -> None:
    selected = SilenceSpurious(0.01, 0.75, scope).select(batch, Memory())

    columns = (batch.advantages, batch.logprobs, batch.entropies, selected.weights)
    for a, lp, h, w in zip(*(column.tolist() for column in columns), strict=True):
        p = torch.tensor(lp).exp().item()
        is_silenced = a > 0 and p < np.float32(0.01) and selected.tau_h is not None and h < selected.tau_h
        assert w == (0.0 if is_silenced else 1.0)


@settings(deadline=None)
@given(TOKENS, st.floats(1e-4, 0.5), st.floats(1e-4, 0.5))
def test_a_higher_tau_p_silences_no_fewer_when_the_threshold_is_over_all_tokens(
    batch: Tokens, one: float, other: float
) -> None:
    low, high = sorted([one, other])
    few = SilenceSpurious(low, 0.8, "all_tokens").select(batch, Memory()).weights
    many = SilenceSpurious(high, 0.8, "all_tokens").select(batch, Memory()).weights

    assert bool((many <= few).all())


@settings(deadline=None)
@given(TOKENS, SCOPE)
def test_a_decided_token_keeps_its_weight_whatever_part_of_the_mini_batch_is_seen(batch: Tokens, scope: Any) -> None:
    selection = SilenceSpurious(0.01, 0.75, scope)
    whole = selection.select(batch, Memory()).weights
    decided = ~selection.undecided(batch, Memory())
    half = torch.arange(len(whole) // 2)
    part = replace(
        batch,
        **{n: getattr(batch, n)[half] for n in ("advantages", "logprobs", "entropies", "rows")},
    )

    assert torch.equal(selection.select(part, Memory()).weights[decided[half]], whole[half][decided[half]])


def test_without_candidates_nothing_is_silenced_and_there_is_no_threshold() -> None:
    batch = tokens([(1.0, 0.5, 0.1), (-1.0, 0.001, 0.1), (0.0, 0.001, 0.1)])
    selected = SilenceSpurious(0.002, 0.75).select(batch, Memory())

    assert selected.weights.tolist() == [1, 1, 1]
    assert selected.tau_h is None
    assert selected.is_inert


def test_one_candidate_is_never_below_its_own_quantile() -> None:
    batch = tokens([(1.0, 0.001, 0.1), (1.0, 0.5, 3.0)])
    selected = SilenceSpurious(0.002, 0.75).select(batch, Memory())

    assert selected.weights.tolist() == [1, 1]
    assert selected.tau_h == pytest.approx(0.1)
    assert selected.is_inert


def test_candidates_below_their_75_percent_quantile_are_silenced() -> None:
    # candidates' entropies 1, 2, 3, 4, 5: the quantile lies at 4, which is not below itself
    batch = tokens([(1.0, 0.001, float(h)) for h in (5, 1, 4, 2, 3)] + [(1.0, 0.5, 0.0), (-1.0, 0.001, 0.0)])
    selected = SilenceSpurious(0.002, 0.75).select(batch, Memory())

    assert selected.tau_h == pytest.approx(4.0)
    assert selected.weights.tolist() == [1, 0, 1, 0, 0, 1, 1]
    assert not selected.is_inert


def test_the_scope_all_tokens_takes_the_80_percent_quantile_over_every_token() -> None:
    # entropies 0..10: the quantile lies at 8
    batch = tokens(
        [(1.0, 0.001, 7.0), (1.0, 0.001, 9.0)] + [(0.0, 0.5, float(h)) for h in (0, 1, 2, 3, 4, 5, 6, 8, 10)]
    )
    selected = SilenceSpurious(0.002, 0.8, "all_tokens").select(batch, Memory())

    assert selected.tau_h == pytest.approx(8.0)
    assert selected.weights.tolist() == [0] + [1] * 10


def test_a_window_takes_the_quantile_over_the_candidates_of_earlier_mini_batches_too() -> None:
    selection = SilenceSpurious(0.002, 0.75, window=2)
    first = selection.select(tokens([(1.0, 0.001, 9.0), (1.0, 0.001, 8.0)]), Memory())
    second = selection.select(tokens([(1.0, 0.001, 1.0)]), first.memory)
    third = selection.select(tokens([(1.0, 0.001, 2.0)]), second.memory)

    assert second.tau_h == pytest.approx(8.5)  # 0.75 quantile of 1, 8, 9
    assert second.weights.tolist() == [0]
    assert third.tau_h == pytest.approx(1.75)  # of 1, 2: the first mini-batch has left the window
    assert third.weights.tolist() == [1]


def test_the_mirror_image_silences_bad_responses_alone() -> None:
    batch = tokens([(-1.0, 0.001, 1.0), (-1.0, 0.001, 2.0), (1.0, 0.001, 0.5)])

    assert weights(SilenceSpurious(0.002, 0.75, sign=-1), batch) == [0, 1, 1]


def test_the_ablations_silence_all_the_most_uncertain_or_a_random_share_of_the_candidates() -> None:
    batch = tokens([(1.0, 0.001, float(h)) for h in (1, 2, 3, 4, 5)] + [(1.0, 0.5, 9.0)])

    assert weights(SilenceRare(0.002), batch) == [0, 0, 0, 0, 0, 1]
    assert weights(SilenceUncertain(0.002, 0.75), batch) == [1, 1, 0, 0, 0, 1]
    random = SilenceAtRandom(0.002, 0.6, seed=1)
    drawn = random.select(batch, Memory())
    assert sum(drawn.weights.tolist()) == 3
    assert drawn.weights[-1] == 1
    assert torch.equal(drawn.weights, random.select(batch, Memory()).weights)
    later = [random.select(batch, Memory(num_minibatches=n)).weights for n in range(10)]
    assert any(not torch.equal(drawn.weights, other) for other in later)


def test_the_20_percent_of_highest_entropy_are_kept() -> None:
    batch = tokens([(1.0, 0.5, float(h)) for h in range(11)])  # the 0.8 quantile of 0..10 is 8

    assert weights(KeepUncertain(0.2), batch) == [0] * 8 + [1] * 3


def test_a_surprising_token_of_a_good_response_weighs_less_by_the_formula() -> None:
    # s = -ln 1e-4 - 1 + ln 0.01 = 9.2103 - 1 - 4.6052 = 3.6052; weight 1 - 0.9 (1 - e^-s) = 0.12447
    batch = tokens([(1.0, 1e-4, 1.0), (-1.0, 1e-4, 1.0), (1.0, 0.02, 1.0)])

    assert weights(SoftenSurprising(0.01, 0.9), batch) == pytest.approx([0.12447, 1, 1], abs=1e-5)
    assert weights(AllTokens(), batch) == [1, 1, 1]


def test_the_controller_raises_tau_p_while_too_little_is_silenced_and_lowers_it_after() -> None:
    selection = SteerTauP(SilenceSpurious(0.002, 0.75), target_ppm=100.0, gain=0.1)
    nothing = selection.select(tokens([(1.0, 0.5, 1.0)]), Memory())
    much = selection.select(tokens([(1.0, 0.001, 1.0), (1.0, 0.001, 2.0)]), nothing.memory)

    assert nothing.tau_p == pytest.approx(0.002)
    assert much.tau_p == pytest.approx(0.002 * math.exp(0.1))
    assert much.memory.tau_p == pytest.approx(0.002)


@settings(deadline=None)
@given(st.lists(st.floats(0, 10, width=32), min_size=1, max_size=50), st.floats(0.0, 1.0))
def test_the_quantile_is_the_linear_one(values: list[float], share: float) -> None:
    expected = np.quantile(np.array(values, dtype=np.float64), share)

    assert quantile(torch.tensor(values), share) == pytest.approx(expected, rel=1e-5, abs=1e-5)
