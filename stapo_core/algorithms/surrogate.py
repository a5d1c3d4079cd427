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
