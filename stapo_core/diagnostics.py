"""What a step did to its tokens, in numbers: clip, mask, funnel and quadrants, all from statistics already at hand.

Knows flat tokens; it runs no network. Source of the formulas: arXiv 2602.15620 and the papers it builds on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from stapo_core.batch import TokenRecord, Tokens, TokenStats

Metrics = dict[str, float | None]
_RATIO_EDGES = (0.5, 0.8, 0.95, 1.05, 1.25, 2.0)
_RATIO_BINS = ("below_0.5", "0.5_to_0.8", "0.8_to_0.95", "0.95_to_1.05", "1.05_to_1.25", "1.25_to_2", "above_2")


@dataclass(frozen=True, slots=True)
class Conditions:
    """The three conditions of the S2T mask at each token, for every algorithm to look at."""

    is_positive: Bool[Tensor, " N"]
    is_rare: Bool[Tensor, " N"]
    is_certain: Bool[Tensor, " N"]


def gradient_norms(stats: TokenStats, slopes: Float32[Tensor, " N"]) -> Float32[Tensor, " N"]:
    """Norm of the surrogate's gradient at each token's logits: |w| sqrt(1 - 2p + sum p^2), w = r A or 0 if clipped.

    Taken as (1 - p)^2 + (sum p^2 - p^2), the second lying between 0 and the first, so that little cancels near p = 1.
    """
    missing = torch.expm1(stats.logprobs).square()
    others = (stats.sum_squares - stats.logprobs.exp().square()).clamp(min=0.0).minimum(missing)
    return torch.where(slopes == 0, 0.0, slopes.abs() * (missing + others).sqrt())


def gradient_bounds(
    stats: TokenStats, slopes: Float32[Tensor, " N"], vocabulary: int
) -> tuple[Float32[Tensor, " N"], Float32[Tensor, " N"]]:
    """Bounds of the squared norm: w^2 (1 - 2p + e^-H) and w^2 (2 - 2p - C H^2), C = (V - 1) / (V ln^2 V).

    No step reports them: they hold of every token, and the tests hold the norms to them.
    """
    p = stats.logprobs.exp()
    constant = (vocabulary - 1) / (vocabulary * math.log(vocabulary) ** 2)
    lower = 1.0 - 2.0 * p + (-stats.entropies).exp()
    upper = 2.0 - 2.0 * p - constant * stats.entropies.square()
    return slopes.square() * lower, slopes.square() * upper


def entropy_changes(stats: TokenStats, slopes: Float32[Tensor, " N"]) -> Float32[Tensor, " N"]:
    """First-order change of H by one gradient step of rate 1 on the token's logits.

    dH = -w [p (ln p + H) - sum_v p_v^2 (ln p_v + H)], the sum being sum p^2 ln p + H sum p^2.
    """
    own = stats.logprobs.exp() * (stats.logprobs + stats.entropies)
    everyone = stats.sum_squares_log + stats.entropies * stats.sum_squares
    return torch.where(slopes == 0, 0.0, -slopes * (own - everyone))


def conditions(record: TokenRecord) -> Conditions:
    """A > 0, p < tau_p, H < tau_h; without a tau_h no token counts as certain."""
    return Conditions(
        is_positive=record.tokens.advantages > 0,
        is_rare=record.stats.logprobs.exp() < record.tau_p,
        is_certain=record.stats.entropies < record.tau_h,
    )


def join(records: Sequence[TokenRecord]) -> TokenRecord:
    """The mini-batches of a step as one record; rows are renumbered so that they stay apart."""
    lengths = torch.cat([record.tokens.lengths for record in records])
    firsts = [0]
    for record in records:
        firsts.append(firsts[-1] + len(record.tokens.lengths))
    rows = torch.cat([record.tokens.rows + first for record, first in zip(records, firsts, strict=False)])
    flat = {
        name: torch.cat([getattr(record.tokens, name) for record in records])
        for name in ("advantages", "logprobs", "old_logprobs", "sampler_logprobs", "entropies")
    }
    references = [record.tokens.reference_logprobs for record in records]
    known = [reference for reference in references if reference is not None]
    tokens = Tokens(**flat, rows=rows, lengths=lengths, reference_logprobs=torch.cat(known) if known else None)
    stats = TokenStats(
        *(torch.cat([getattr(record.stats, each.name) for record in records]) for each in fields(TokenStats))
    )
    rest = {
        each.name: torch.cat([getattr(record, each.name) for record in records])
        for each in fields(TokenRecord)
        if each.name not in ("tokens", "stats")
    }
    return TokenRecord(tokens=tokens, stats=stats, **rest)


def diagnose(record: TokenRecord, sign: Literal[1, -1] = 1) -> Metrics:
    """All metrics of the areas policy (entropy, clip, ratio), mask, funnel, quadrant and sampler.

    `sign` is that of the advantages among which the mask looks for candidates; the funnel is always that of A > 0.
    """
    held = conditions(record)
    return {
        **_policy(record),
        **_mask(record, held, sign),
        **_funnel(held),
        **_quadrants(record, held),
        **_sampler(record),
    }


def _policy(record: TokenRecord) -> Metrics:
    tokens = record.tokens
    ratios = (tokens.logprobs - tokens.old_logprobs).exp()
    metrics: Metrics = {
        "policy/entropy": tokens.entropies.nanmean().item(),
        "policy/clip_low": record.clipped_low.float().mean().item(),
        "policy/clip_high": record.clipped_high.float().mean().item(),
        "policy/ratio_max": ratios[record.has_old].max().item() if bool(record.has_old.any()) else 1.0,
    }
    if tokens.reference_logprobs is not None:
        difference = tokens.reference_logprobs - tokens.logprobs
        metrics["policy/kl"] = (difference.exp() - difference - 1.0).mean().item()
    return metrics


def _mask(record: TokenRecord, held: Conditions, sign: Literal[1, -1]) -> Metrics:
    is_masked = record.weights == 0
    norms = gradient_norms(record.stats, record.slopes).square()
    changes = entropy_changes(record.stats, record.slopes).abs()
    num_masked = int(is_masked.sum())
    return {
        "mask/ppm": 1e6 * num_masked / len(is_masked),
        "mask/tokens": float(num_masked),
        "mask/candidates": float(((sign * record.tokens.advantages > 0) & held.is_rare).sum()),
        "mask/responses_touched": float(len(torch.unique(record.tokens.rows[is_masked]))),
        "mask/grad_share": _share(norms, is_masked),
        "mask/entropy_change_share": _share(changes, is_masked),
    }


def _funnel(held: Conditions) -> Metrics:
    rare = held.is_positive & held.is_rare
    return {
        "funnel/tokens": float(len(rare)),
        "funnel/positive_advantage": float(held.is_positive.sum()),
        "funnel/low_p": float(rare.sum()),
        "funnel/low_p_low_h": float((rare & held.is_certain).sum()),
    }


def _quadrants(record: TokenRecord, held: Conditions) -> Metrics:
    """Counts and means of p, H and gradient norm in each of eight cells; a mean over no token is None."""
    signs = {"pos": held.is_positive, "neg": record.tokens.advantages < 0}
    cells = {"low_p_low_h": (True, True), "low_p_high_h": (True, False)}
    cells |= {"high_p_low_h": (False, True), "high_p_high_h": (False, False)}
    values = {
        "p": record.stats.logprobs.exp(),
        "entropy": record.stats.entropies,
        "grad_norm": gradient_norms(record.stats, record.slopes),
    }
    metrics: Metrics = {}
    for cell, (rare, certain) in cells.items():
        for sign, has_sign in signs.items():
            inside = has_sign & (held.is_rare == rare) & (held.is_certain == certain)
            area, count = f"quadrant/{cell}_{sign}", int(inside.sum())
            metrics[f"{area}/count"] = float(count)
            for name, value in values.items():
                metrics[f"{area}/{name}"] = value[inside].mean().item() if count else None
    return metrics


def _sampler(record: TokenRecord) -> Metrics:
    """How far the sampler's log-probs lie from the trainer's, over the tokens that both have seen.

    With d = log p of the trainer - log p of the sampler: KL(sampler, trainer) by the estimate e^d - 1 - d, which is
    never negative, and the shares of tokens whose ratio e^d lies in each bin (a bin takes its lower edge).
    """
    names = [f"sampler/{name}" for name in ("logp_diff_mean", "logp_diff_max", "kl")]
    names += [f"sampler/ratio_hist/{name}" for name in _RATIO_BINS]
    gaps = (record.tokens.old_logprobs - record.tokens.sampler_logprobs)[record.has_old].double()
    gaps = gaps[gaps.isfinite()]
    if not len(gaps):
        return dict.fromkeys(names)
    edges = torch.tensor(_RATIO_EDGES, dtype=torch.float64, device=gaps.device)
    bins = torch.bucketize(gaps.exp(), edges, right=True)
    shares = torch.bincount(bins, minlength=len(_RATIO_BINS)) / len(gaps)
    sizes = [gaps.abs().mean(), gaps.abs().max(), (gaps.expm1() - gaps).mean()]
    return dict(zip(names, [size.item() for size in sizes] + shares.tolist(), strict=True))


def _share(values: Float32[Tensor, " N"], chosen: Bool[Tensor, " N"]) -> float:
    total = values.sum().item()
    return values[chosen].sum().item() / total if total else 0.0
