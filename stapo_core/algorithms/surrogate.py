"""What is maximised, token by token: a function of the log-probs, its slope being how hard each token is pushed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from stapo_core.batch import Tokens


@dataclass(frozen=True, slots=True)
class Objective:
    """The objective of each token, differentiable with respect to the log-probs, and where the clip is active."""

    values: Float32[Tensor, " N"]
    clipped_low: Bool[Tensor, " N"]
    clipped_high: Bool[Tensor, " N"]


class Surrogate(Protocol):
    """Turns the current log-probs into the objective of each token."""

    def __call__(self, logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Objective:
        """`logprobs` are those of `tokens`, as the leaf to differentiate by."""
        ...


@dataclass(frozen=True, slots=True)
class Clipped:
    """min(r A, clip(r, 1 - low, 1 + high) A), r = p / p_old (PPO, arXiv 1707.06347; the two sides, 2503.14476)."""

    low: float
    high: float

    def __call__(self, logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Objective:
        """The clipped objective of each token."""
        ratios = (logprobs - tokens.old_logprobs).exp()
        return clip_objective(ratios, tokens.advantages, self.low, self.high)


@dataclass(frozen=True, slots=True)
class DualClipped:
    """The clipped objective, which for A < 0 is never below `ceiling` A (dual clip, arXiv 1912.09729)."""

    low: float
    high: float
    ceiling: float

    def __call__(self, logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Objective:
        """The twice clipped objective of each token."""
        ratios = (logprobs - tokens.old_logprobs).exp()
        once = clip_objective(ratios, tokens.advantages, self.low, self.high)
        is_capped = (tokens.advantages < 0) & (ratios.detach() > self.ceiling)
        values = torch.where(is_capped, self.ceiling * tokens.advantages, once.values)
        return Objective(values, once.clipped_low, once.clipped_high | is_capped)


@dataclass(frozen=True, slots=True)
class SequenceClipped:
    """GSPO (arXiv 2507.18071): r is the geometric mean of the response's ratios, in its token form.

    Each token's ratio is sg(s) p / sg(p), s = exp(mean over the response of log r): the value is the sequence's, the
    gradient goes through the token. The mean log-ratio is cut at 10 so that s stays finite.
    """

    low: float
    high: float

    def __call__(self, logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Objective:
        """The clipped objective of each token's response, spread over its tokens."""
        log_ratios = (logprobs - tokens.old_logprobs).detach()
        sums = torch.zeros_like(tokens.lengths, dtype=torch.float32).index_add_(0, tokens.rows, log_ratios)
        means = (sums / tokens.lengths).clamp(max=10.0)[tokens.rows]
        ratios = (means + logprobs - logprobs.detach()).exp()
        return clip_objective(ratios, tokens.advantages, self.low, self.high)


@dataclass(frozen=True, slots=True)
class WeightClipped:
    """CISPO (arXiv 2506.13585): sg(min(r, 1 + high)) A log p, so that every token keeps a gradient."""

    high: float

    def __call__(self, logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Objective:
        """The weighted log-prob of each token."""
        ratios = (logprobs - tokens.old_logprobs).detach().exp()
        values = ratios.clamp(max=1.0 + self.high) * tokens.advantages * logprobs
        return Objective(values, torch.zeros_like(ratios, dtype=torch.bool), ratios > 1.0 + self.high)


@dataclass(frozen=True, slots=True)
class WithImportance:
    """A surrogate whose tokens weigh min(p_trainer / p_sampler, cap), both of the policy that the step began with.

    A sampler that could not give a log-prob (NaN) is no evidence of a gap: such a token weighs 1.
    """

    inner: Surrogate
    cap: float

    def __call__(self, logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Objective:
        """The inner objective, weighed."""
        inner = self.inner(logprobs, tokens)
        gaps = (tokens.old_logprobs - tokens.sampler_logprobs).nan_to_num(nan=0.0)
        return Objective(inner.values * gaps.exp().clamp(max=self.cap), inner.clipped_low, inner.clipped_high)


@dataclass(frozen=True, slots=True)
class WithKl:
    """A surrogate less `coefficient` times the k3 estimate of KL(policy || reference): e^d - d - 1, d = ref - log p."""

    inner: Surrogate
    coefficient: float

    def __call__(self, logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Objective:
        """The inner objective less the penalty."""
        inner = self.inner(logprobs, tokens)
        penalty = self.coefficient * k3(logprobs, tokens)
        return Objective(inner.values - penalty, inner.clipped_low, inner.clipped_high)


def k3(logprobs: Float32[Tensor, " N"], tokens: Tokens) -> Float32[Tensor, " N"]:
    """Schulman's third estimate of KL(policy || reference) at each token: never negative, unbiased on-policy."""
    if tokens.reference_logprobs is None:
        raise ValueError("a KL term needs the log-probs of a reference model")
    difference = tokens.reference_logprobs - logprobs
    return difference.exp() - difference - 1.0


def clip_objective(
    ratios: Float32[Tensor, " N"], advantages: Float32[Tensor, " N"], low: float, high: float
) -> Objective:
    """min(r A, clip(r) A), and the tokens at which it is flat."""
    values = torch.minimum(ratios * advantages, ratios.clamp(1.0 - low, 1.0 + high) * advantages)
    with torch.no_grad():
        clipped_low = (advantages < 0) & (ratios < 1.0 - low)
        clipped_high = (advantages > 0) & (ratios > 1.0 + high)
    return Objective(values, clipped_low, clipped_high)
