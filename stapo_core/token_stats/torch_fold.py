"""The fold over one tile of logits in plain torch, on any device: two buffers of the tile's size, no more."""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

from stapo_core.token_stats import running_sums


def fold(logits: Float32[Tensor, "C U"], sums: Float32[Tensor, "5 C"]) -> None:
    """Adds a tile to the running sums of its rows; destroys `logits`."""
    running_sums.raise_peak(sums, torch.maximum(sums[0], logits.amax(dim=1)))
    weights = logits.sub_(sums[0][:, None]).exp()
    sums[1] += weights.sum(dim=1)
    sums[2] += logits.mul_(weights).sum(dim=1)
    sums[4] += logits.mul_(weights).sum(dim=1)
    sums[3] += weights.square_().sum(dim=1)
