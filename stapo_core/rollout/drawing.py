"""Draws tokens from logits by inverting the distribution function, each response from a random stream of its own.

Knows probabilities; it knows no model. `n` counts the responses that are still being drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

from stapo_core.rollout import Limits

_NUMBERS = 256  # numbers that a stream makes at a time
_WORDS = 64  # words of the vocabulary that are summed together


class Drawn(NamedTuple):
    """One token per response, its log-probability and the entropy it was drawn at (nats, at temperature and limits)."""

    token_ids: Int64[Tensor, " n"]
    logprobs: Float32[Tensor, " n"]
    entropies: Float32[Tensor, " n"]


def draw_tokens(logits: Float[Tensor, "n V"], temperature: float, uniforms: Float64[Tensor, " n"]) -> Drawn:
    """Draws from softmax(logits / temperature); `uniforms` lie in [0, 1).

    A token of probability 0 is never drawn. The distribution function is inverted in two steps, first among blocks
    of words and then within one, so that no cumulative sum runs over the vocabulary: it would cost more than the
    whole rest on a CPU, and `torch.multinomial` forty times as much.
    """
    largest = logits.amax(dim=-1, keepdim=True).float()
    shifted = _shift(logits, largest, temperature)
    weights = shifted.exp2()  # four times as fast as e^x on a CPU
    blocks = weights.sum(dim=-1).double()
    total = blocks.sum(dim=-1, keepdim=True)
    block, rest = _invert(blocks, uniforms.unsqueeze(-1) * total)
    chosen = block.unsqueeze(-1).expand(-1, -1, _WORDS)
    word, _ = _invert(weights.gather(1, chosen).squeeze(1).double(), rest)
    token_ids = (block * _WORDS + word).clamp_(max=logits.shape[-1] - 1)
    log_total = total.log()
    logprobs = (logits.gather(-1, token_ids).double() - largest.double()) / temperature - log_total
    mean_shift = shifted.mul_(weights).sum(dim=-1).sum(dim=-1, keepdim=True, dtype=torch.float64) / total
    entropies = log_total - math.log(2.0) * mean_shift
    return Drawn(token_ids.squeeze(-1), logprobs.squeeze(-1).float(), entropies.squeeze(-1).float())


def rule_out(logits: Float[Tensor, "n V"], temperature: float, limits: Limits) -> Float32[Tensor, "n V"]:
    """The logits over the temperature, with minus infinity for every token beyond the limits."""
    scaled = logits.float() / temperature
    if limits.top_k is not None:
        least = scaled.topk(min(limits.top_k, scaled.shape[-1]), dim=-1).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    if limits.top_p < 1.0:
        ordered, order = scaled.sort(dim=-1, descending=True, stable=True)
        p = ordered.softmax(dim=-1)
        likelier = p.cumsum(dim=-1) - p  # the probability of all that come before
        is_out = likelier >= limits.top_p
        is_out[:, 0] = False
        scaled = scaled.scatter(-1, order, ordered.masked_fill(is_out, -torch.inf))
    if limits.min_p > 0.0:
        least = scaled.amax(dim=-1, keepdim=True) + math.log(limits.min_p)
        scaled = scaled.masked_fill(scaled < least, -torch.inf)
    return scaled


def _shift(
    logits: Float[Tensor, "n V"], largest: Float32[Tensor, "n 1"], temperature: float
) -> Float32[Tensor, "n K W"]:
    """(logits - largest) / temperature as powers of two, in blocks; the last is filled up with words of weight 0."""
    num_rows, num_words = logits.shape
    shifted = torch.empty(num_rows, -(-num_words // _WORDS) * _WORDS, device=logits.device)
    shifted[:, num_words:] = -torch.inf
    torch.sub(logits, largest, out=shifted[:, :num_words])
    # 2^-1e4 is 0, and 0 * -1e4 is 0, where 0 * -inf would be no number.
    return shifted.mul_(1.0 / (math.log(2.0) * temperature)).clamp_(min=-1e4).view(num_rows, -1, _WORDS)


def _invert(weights: Float64[Tensor, "n K"], target: Float64[Tensor, "n 1"]) -> tuple[Tensor, Tensor]:
    """The first place where the running sum exceeds the target, and what of the target lies beyond the one before."""
    cumulative = weights.cumsum(dim=-1)
    # Rounding may lift the target to the whole sum, which no place exceeds.
    below = torch.nextafter(cumulative[:, -1:], torch.zeros_like(target))
    target = torch.minimum(target, below)
    place = torch.searchsorted(cumulative, target, right=True).clamp_(max=weights.shape[-1] - 1)
    return place, target - cumulative.gather(-1, place) + weights.gather(-1, place)


class UniformStreams:
    """One Philox stream per response, keyed by its seed: number t of a stream depends on the seed and t alone."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
        self._block = np.empty((len(seeds), _NUMBERS))
        self._next = 0

    def draw(self, rows: Sequence[int]) -> Float64[Tensor, " n"]:
        """The next number of each of `rows`. A row that is left out once is never asked again."""
        place = self._next % _NUMBERS
        if place == 0:
            for row in rows:
                self._block[row] = self._generators[row].random(_NUMBERS)
        self._next += 1
        return torch.from_numpy(self._block[np.asarray(rows), place])
