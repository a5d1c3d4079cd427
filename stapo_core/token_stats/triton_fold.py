"""The fold over one tile of logits as a Triton kernel: one program per row, each logit read once.

The same numbers as `torch_fold`, with running sums (`running_sums` says which) that follow the peak as it rises.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from jaxtyping import Float32
from torch import Tensor

_BLOCK = 1024


def fold(logits: Float32[Tensor, "C U"], sums: Float32[Tensor, "5 C"]) -> None:
    """Adds a tile to the running sums of its rows; only reads `logits`."""
    num_rows, num_words = logits.shape
    _fold_rows[(num_rows,)](logits, sums, num_words, logits.stride(0), sums.stride(0), sums.stride(1), BLOCK=_BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def _fold_rows(
    logits: Any,
    sums: Any,
    num_words: Any,
    logits_stride: Any,
    sums_stride: Any,
    row_stride: Any,
    BLOCK: tl.constexpr,  # noqa: N803  # Triton's own spelling of a constant
) -> None:
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, BLOCK)
    own = sums + row * row_stride
    peak = tl.load(own)
    total = tl.load(own + sums_stride)
    weighted = tl.load(own + 2 * sums_stride)
    squares = tl.load(own + 3 * sums_stride)
    weighted_squares = tl.load(own + 4 * sums_stride)
    for start in range(0, num_words, BLOCK):
        place = start + lane
        is_real = place < num_words
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

    tl.store(own, peak)
    tl.store(own + sums_stride, total)
    tl.store(own + 2 * sums_stride, weighted)
    tl.store(own + 3 * sums_stride, squares)
    tl.store(own + 4 * sums_stride, weighted_squares)
