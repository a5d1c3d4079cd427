"""Five sums per token that grow tile by tile over the vocabulary, and the statistics that follow from them.

With e = exp(z - peak): row 0 is the peak so far, row 1 sum e, row 2 sum (z - peak) e, row 3 sum e^2, row 4
sum (z - peak) e^2.
"""

from __future__ import annotations

import torch
from jaxtyping import Float32
from torch import Tensor

_LOWEST = -1.0e30  # finite, so that the first correction is 0 x finite


def start(num_tokens: int, device: torch.device) -> Float32[Tensor, "5 N"]:
    """The sums over no word at all."""
    sums = torch.zeros((5, num_tokens), device=device)
    sums[0] = _LOWEST
    return sums


def raise_peak(sums: Float32[Tensor, "5 C"], peak: Float32[Tensor, " C"]) -> None:
    """Restates the sums relative to `peak`, which is no lower than the present one."""
    drop = sums[0] - peak
    shrink = drop.exp()
    sums[2] = shrink * (sums[2] + drop * sums[1])
    sums[4] = shrink.square() * (sums[4] + drop * sums[3])
    sums[1] *= shrink
    sums[3] *= shrink.square()
    sums[0] = peak


def finish(sums: Float32[Tensor, "5 N"], chosen: Float32[Tensor, " N"]) -> Float32[Tensor, "5 N"]:
    """Log p, H, sum p^2, sum p^2 ln p and the log-sum-exp; `chosen` is the logit of each token's target.

    With s = sum e: LSE = peak + ln s, H = ln s - sum (z - peak) e / s, sum p^2 = sum e^2 / s^2,
    sum p^2 ln p = (sum (z - peak) e^2 - ln s sum e^2) / s^2.
    """
    peak, total, weighted, squares, weighted_squares = sums.unbind()
    log_total = total.log()
    lse = peak + log_total
    return torch.stack(
        [
            chosen - lse,
            (log_total - weighted / total).clamp_(min=0.0),
            squares / total.square(),
            (weighted_squares - log_total * squares) / total.square(),
            lse,
        ]
    )
