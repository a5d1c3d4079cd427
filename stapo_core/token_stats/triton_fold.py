"""The fold over one chunk of logits as a Triton kernel: one program per row, each logit read once.

The same numbers as `torch_fold`, with running sums that follow the maximum as it rises.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from jaxtyping import Float32, Int64
from torch import Tensor

_BLOCK = 1024


def fold(logits: Float32[Tensor, "C V"], targets: Int64[Tensor, " C"], out: Float32[Tensor, "5 C"]) -> None:
    """Writes log p, H, sum p^2, sum p^2 ln p and the log-sum-exp of each row into `out`; only reads `logits`."""
    num_rows, vocabulary = logits.shape
    _fold_rows[(num_rows,)](
        logits, targets, out, vocabulary, logits.stride(0), out.stride(0), out.stride(1), BLOCK=_BLOCK
    )


@triton.jit  # type: ignore[untyped-decorator]
def _fold_rows(
    logits: Any,
    targets: Any,
    out: Any,
    vocabulary: Any,
    logits_stride: Any,
    out_stride: Any,
    row_stride: Any,
    BLOCK: tl.constexpr,  # noqa: N803  # Triton's own spelling of a constant
) -> None:
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    # With e = exp(z - peak): total = sum e, weighted = sum (z - peak) e, squares = sum e^2,
    # weighted_squares = sum (z - peak) e^2. A finite start keeps 0 x infinity out of the first correction.
    peak = -1.0e30
    total = 0.0
    weighted = 0.0
    squares = 0.0
    weighted_squares = 0.0
    for start in range(0, vocabulary, BLOCK):
        place = start + lane
        is_real = place < vocabulary
        z = tl.load(logits + row * logits_stride + place, mask=is_real, other=-float("inf"))
        risen = tl.maximum(peak, tl.max(z, axis=0))
        drop = peak - risen
        shrink = tl.exp(drop)
        weighted = shrink * (weighted + drop * total)
        weighted_squares = shrink * shrink * (weighted_squares + drop * squares)
        total = shrink * total
        squares = shrink * shrink * squares
        distance = tl.where(is_real, z - risen, 0.0)
        e = tl.where(is_real, tl.exp(distance), 0.0)
        total += tl.sum(e, axis=0)
        weighted += tl.sum(distance * e, axis=0)
        squares += tl.sum(e * e, axis=0)
        weighted_squares += tl.sum(distance * e * e, axis=0)
        peak = risen

    log_total = tl.log(total)
    chosen = tl.load(logits + row * logits_stride + tl.load(targets + row))
    place = out + row * row_stride
    tl.store(place, chosen - peak - log_total)
    tl.store(place + out_stride, tl.maximum(log_total - weighted / total, 0.0))
    tl.store(place + 2 * out_stride, squares / (total * total))
    tl.store(place + 3 * out_stride, (weighted_squares - log_total * squares) / (total * total))
    tl.store(place + 4 * out_stride, peak + log_total)
