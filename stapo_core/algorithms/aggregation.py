"""How token objectives become one loss: a scale for each token, known at once, and one denominator for all.

The denominator is a count over the whole mini-batch, groups without advantage included, so that no split of the
mini-batch changes the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float32
from torch import Tensor

from stapo_core.batch import Tokens


class Aggregation(Protocol):
    """Loss = -(sum of scale x weight x objective) / denominator."""

    def scale(self, tokens: Tokens) -> Float32[Tensor, " N"]:
        """What each token's objective is multiplied by; right on any part of the mini-batch that has whole rows."""
        ...

    def denominator(self, tokens: Tokens, weights: Float32[Tensor, " N"]) -> float:
        """What the sum over the whole mini-batch is divided by; 0 when nothing is left to learn from."""
        ...


@dataclass(frozen=True, slots=True)
class SurvivingMean:
    """The mean over the tokens that the selection kept."""

    def scale(self, tokens: Tokens) -> Float32[Tensor, " N"]:
        """1 each."""
        return torch.ones_like(tokens.advantages)

    def denominator(self, tokens: Tokens, weights: Float32[Tensor, " N"]) -> float:
        """The sum of the weights."""
        return weights.sum(dtype=torch.float64).item()


@dataclass(frozen=True, slots=True)
class TokenMean:
    """The mean over all response tokens."""

    def scale(self, tokens: Tokens) -> Float32[Tensor, " N"]:
        """1 each."""
        return torch.ones_like(tokens.advantages)

    def denominator(self, tokens: Tokens, weights: Float32[Tensor, " N"]) -> float:
        """The number of tokens."""
        return float(len(weights))


@dataclass(frozen=True, slots=True)
class SequenceMean:
    """The mean over responses of each response's mean over its tokens."""

    def scale(self, tokens: Tokens) -> Float32[Tensor, " N"]:
        """1 / length of the token's response."""
        return 1.0 / tokens.lengths.float()[tokens.rows]

    def denominator(self, tokens: Tokens, weights: Float32[Tensor, " N"]) -> float:
        """The number of responses."""
        return float(len(tokens.lengths))


@dataclass(frozen=True, slots=True)
class ConstantLength:
    """The sum over tokens, divided by what as many responses of `max_length` tokens would have (arXiv 2503.20783)."""

    max_length: int

    def scale(self, tokens: Tokens) -> Float32[Tensor, " N"]:
        """1 each."""
        return torch.ones_like(tokens.advantages)

    def denominator(self, tokens: Tokens, weights: Float32[Tensor, " N"]) -> float:
        """Responses x max_length."""
        return float(len(tokens.lengths) * self.max_length)
