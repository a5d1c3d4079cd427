"""Log p, entropy and collision probability of every token in one pass over the vocabulary, logits never stored.

Knows hidden states and the head's weight; it knows no model, no advantage and no loss. The folds over a tile of
logits live in their own files; the autograd function here is the same for all of them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from stapo_core.batch import TokenStats
from stapo_core.products import multiply
from stapo_core.token_stats import running_sums, torch_fold

_CPU_TILE_BYTES = 16 * 2**20  # two of them fit into a level-3 cache, and malloc reuses them instead of mapping pages
_CPU_TILE_ROWS = 2048
_GPU_TILE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Head:
    """How logits follow from hidden states: `hidden @ weight.T`, scaled, soft-capped, then divided by temperature."""

    weight: Float[Tensor, "V D"]
    temperature: float = 1.0
    softcap: float | None = None
    scale: float = 1.0


def token_stats(hidden: Float[Tensor, "N D"], head: Head, targets: Int64[Tensor, " N"]) -> TokenStats:
    """Scores `targets` under softmax(logits / temperature); memory is a few tiles of logits, 64 MB each at most.

    `logprobs` is differentiable with respect to `hidden` and `head.weight`; the other statistics carry no gradient.
    Reductions and gradient sums are float32 whatever the inputs are.
    """
    return TokenStats(*_TokenStats.apply(hidden, head.weight, targets, head))  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Tiles:
    """How the logits [tokens, vocabulary] are cut: a tile is some rows by some words."""

    rows: list[slice]
    words: list[slice]

    @classmethod
    def cut(cls, num_tokens: int, vocabulary: int, device: torch.device) -> Tiles:
        """Nearly square tiles on a CPU, where a product of few rows reads the head once for little work.

        A GPU takes the whole vocabulary at once: its fold wants long rows, and its memory is fast.
        """
        if device.type == "cpu":
            height = min(max(num_tokens, 1), _CPU_TILE_ROWS)
            width = min(vocabulary, max(_CPU_TILE_BYTES // (4 * height), 1))
        else:
            height = min(max(_GPU_TILE_BYTES // (4 * vocabulary), 32), 1024)
            width = vocabulary
        return cls(_cut(num_tokens, height), _cut(vocabulary, width))


class _TokenStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], targets: Int64[Tensor, " N"], head: Head
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tiles = Tiles.cut(len(targets), len(weight), hidden.device)
        fold = _choose_fold(hidden.device)
        sums = running_sums.start(len(targets), hidden.device)
        chosen = sums.new_zeros(len(targets))
        states = _operand(hidden, hidden)
        for words in tiles.words:
            operand = _operand(weight.detach()[words], hidden)  # a head in float32 is cast once, not for every tile
            for rows in tiles.rows:
                logits = _logits(states[rows], operand, head)
                place, is_inside = _place(targets[rows], words)
                chosen[rows] += logits.gather(1, place).squeeze(1).where(is_inside, 0.0)
                fold(logits, sums[:, rows])
        logprobs, entropies, sum_squares, sum_squares_log, lse = running_sums.finish(sums, chosen)
        ctx.head = head
        ctx.save_for_backward(hidden, weight, targets, lse)
        ctx.mark_non_differentiable(entropies, sum_squares, sum_squares_log)
        return logprobs, entropies, sum_squares, sum_squares_log

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Float32[Tensor, " N"]) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets, lse = ctx.saved_tensors
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        pushed = grads[0].nonzero().squeeze(1)  # a token without a gradient costs nothing
        states, targets, lse, gradient = (
            _operand(hidden[pushed], hidden),
            targets[pushed],
            lse[pushed],
            grads[0][pushed],
        )
        d_states = torch.zeros_like(states, dtype=torch.float32) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        tiles = Tiles.cut(len(pushed), len(weight), hidden.device)
        for words in tiles.words:
            operand = _operand(weight[words], hidden)
            for rows in tiles.rows:
                logits = _logits(states[rows], operand, ctx.head)
                d_logits = _logits_gradient(logits, lse[rows], gradient[rows], _place(targets[rows], words), ctx.head)
                d_logits = d_logits.to(operand.dtype)
                if d_states is not None:
                    d_states[rows] += _product(d_logits, operand)
                if d_weight is not None:
                    d_weight[words] += _product(d_logits.T, states[rows])
        d_hidden = None
        if d_states is not None:
            d_hidden = torch.zeros_like(hidden).index_copy_(0, pushed, d_states.to(hidden.dtype))
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None, None


def _choose_fold(device: torch.device) -> Callable[[Tensor, Tensor], None]:
    """The kernel on a GPU with Triton, plain torch elsewhere; Triton is not imported where it is not used."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return torch_fold.fold
    from stapo_core.token_stats import triton_fold

    return triton_fold.fold


def _cut(length: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, length)) for start in range(0, length, size)]


def _operand(values: Float[Tensor, "I J"], hidden: Float[Tensor, "N D"]) -> Float[Tensor, "I J"]:
    """As the products take it: a GPU multiplies bfloat16 into float32, a CPU would round what it sums."""
    return values.to(hidden.dtype) if hidden.is_cuda else values.float()


def _product(left: Float[Tensor, "I J"], right: Float[Tensor, "J K"]) -> Float32[Tensor, "I K"]:
    with torch.autocast(left.device.type, enabled=False):
        if left.dtype != torch.float32:
            return torch.mm(left, right, out_dtype=torch.float32)
        return multiply(left, right)


def _place(targets: Int64[Tensor, " C"], words: slice) -> tuple[Int64[Tensor, "C 1"], Tensor]:
    """The column of each target in a tile, and whether it lies in this tile at all."""
    is_inside = (targets >= words.start) & (targets < words.stop)
    return (targets - words.start).clamp(0, words.stop - words.start - 1)[:, None], is_inside


def _logits(hidden: Float[Tensor, "C D"], weight: Float[Tensor, "U D"], head: Head) -> Float32[Tensor, "C U"]:
    logits = _product(hidden, weight.T)
    if head.scale != 1.0:
        logits.mul_(head.scale)
    if head.softcap is not None:
        logits.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits if head.temperature == 1.0 else logits.div_(head.temperature)


def _logits_gradient(
    logits: Float32[Tensor, "C U"],
    lse: Float32[Tensor, " C"],
    gradient: Float32[Tensor, " C"],
    target: tuple[Int64[Tensor, "C 1"], Tensor],
    head: Head,
) -> Float32[Tensor, "C U"]:
    """d(loss)/d(hidden @ weight.T) from d(log p)/dz = onehot - p, p from the saved log-sum-exp; destroys `logits`."""
    place, is_inside = target
    slope = None if head.softcap is None else 1.0 - (logits * (head.temperature / head.softcap)).square()
    logits.sub_(lse[:, None]).exp_().mul_(-gradient[:, None])
    logits.scatter_add_(1, place, gradient.where(is_inside, 0.0)[:, None])
    if slope is not None:
        logits.mul_(slope)
    if head.scale != head.temperature:
        logits.mul_(head.scale / head.temperature)
    return logits
