"""The fold over one chunk of logits in plain torch, on any device: two buffers of the chunk's size, no more."""

from __future__ import annotations

import torch
from jaxtyping import Float32, Int64
from torch import Tensor


def fold(logits: Float32[Tensor, "C V"], targets: Int64[Tensor, " C"], out: Float32[Tensor, "5 C"]) -> None:
    """Writes log p, H, sum p^2, sum p^2 ln p and the log-sum-exp of each row into `out`; destroys `logits`.

    With e = exp(z - max) and s = sum e: LSE = max + ln s, H = ln s - sum (z - max) e / s,
    sum p^2 = sum e^2 / s^2, sum p^2 ln p = (sum (z - max) e^2 - ln s sum e^2) / s^2.
    """
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    peak = logits.amax(dim=1)
    logits.sub_(peak[:, None])
    weights = logits.exp()
    total = weights.sum(dim=1)
    log_total = total.log()
    logits.mul_(weights)
    squares = torch.einsum("cv,cv->c", weights, weights)
    squares_log = torch.einsum("cv,cv->c", logits, weights)

    out[4] = peak + log_total
    out[0] = chosen - out[4]
    out[1] = (log_total - logits.sum(dim=1) / total).clamp_(min=0.0)
    out[2] = squares / total.square()
    out[3] = (squares_log - log_total * squares) / total.square()
