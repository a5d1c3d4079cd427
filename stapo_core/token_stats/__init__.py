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
from stapo_core.token_stats import torch_fold

_CHUNK_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Head:
    """How logits follow from hidden states: `hidden @ weight.T`, scaled, soft-capped, then divided by temperature."""

    weight: Float[Tensor, "V D"]
    temperature: float = 1.0
    softcap: float | None = None
    scale: float = 1.0


def token_stats(hidden: Float[Tensor, "N D"], head: Head, targets: Int64[Tensor, " N"]) -> TokenStats:
    """Scores `targets` under softmax(logits / temperature); peak memory is two chunks of logits of 64 MB each.

    `logprobs` is differentiable with respect to `hidden` and `head.weight`; the other statistics carry no gradient.
    Reductions and gradient sums are float32 whatever the inputs are.
    """
    return TokenStats(*_TokenStats.apply(hidden, head.weight, targets, head))  # type: ignore[no-untyped-call]


def chunk_size(vocabulary: int) -> int:
    """Tokens per chunk, so that one float32 chunk of logits takes about 64 MB."""
    return min(max(_CHUNK_BYTES // (4 * vocabulary), 32), 1024)


class _TokenStats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Float[Tensor, "N D"], weight: Float[Tensor, "V D"], targets: Int64[Tensor, " N"], head: Head
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        operand = _operand(weight.detach(), hidden)
        outputs = hidden.new_empty((5, len(targets)), dtype=torch.float32)
        fold = _choose_fold(hidden.device)
        for rows in _chunks(len(targets), len(weight)):
            fold(_logits(hidden[rows], operand, head), targets[rows], outputs[:, rows])
        logprobs, entropies, sum_squares, sum_squares_log, lse = outputs.unbind()
        ctx.head = head
        ctx.save_for_backward(hidden, weight, targets, lse)
        ctx.mark_non_differentiable(entropies, sum_squares, sum_squares_log)
        return logprobs, entropies, sum_squares, sum_squares_log

    @staticmethod
    def backward(ctx: Any, *grads: Float32[Tensor, " N"]) -> tuple[Tensor | None, Tensor | None, None, None]:
        hidden, weight, targets, lse = ctx.saved_tensors
        operand = _operand(weight, hidden)
        needs_hidden, needs_weight = ctx.needs_input_grad[:2]
        d_hidden = torch.zeros_like(hidden) if needs_hidden else None
        d_weight = torch.zeros_like(weight, dtype=torch.float32) if needs_weight else None
        pushed = grads[0].nonzero().squeeze(1)  # a token without a gradient costs nothing
        for part in _chunks(len(pushed), len(weight)):
            rows = pushed[part]
            d_logits = _logits_gradient(hidden[rows], operand, targets[rows], (lse[rows], grads[0][rows]), ctx.head)
            if d_hidden is not None:
                d_hidden[rows] = _product(d_logits, operand).to(hidden.dtype)
            if d_weight is not None:
                _add_product(d_weight, d_logits.T, hidden[rows])
        return d_hidden, None if d_weight is None else d_weight.to(weight.dtype), None, None


def _choose_fold(device: torch.device) -> Callable[[Tensor, Tensor, Tensor], None]:
    """The kernel on a GPU with Triton, plain torch elsewhere; Triton is not imported where it is not used."""
    if device.type != "cuda" or importlib.util.find_spec("triton") is None:
        return torch_fold.fold
    from stapo_core.token_stats import triton_fold

    return triton_fold.fold


def _chunks(num_tokens: int, vocabulary: int) -> list[slice]:
    size = chunk_size(vocabulary)
    return [slice(start, start + size) for start in range(0, num_tokens, size)]


def _operand(weight: Float[Tensor, "V D"], hidden: Float[Tensor, "N D"]) -> Float[Tensor, "V D"]:
    """The weight as the products take it: a GPU multiplies bfloat16 into float32, a CPU would round what it sums."""
    return weight.to(hidden.dtype) if hidden.is_cuda else weight.float()


def _product(left: Float[Tensor, "I J"], right: Float[Tensor, "J K"]) -> Float32[Tensor, "I K"]:
    if left.is_cuda and left.dtype != torch.float32:
        return torch.mm(left, right.to(left.dtype), out_dtype=torch.float32)
    return torch.mm(left.float(), right.float())


def _add_product(total: Float32[Tensor, "I K"], left: Float[Tensor, "I J"], right: Float[Tensor, "J K"]) -> None:
    if left.dtype == torch.float32:
        total.addmm_(left, right.float())
    else:
        total.add_(_product(left, right))


def _logits(hidden: Float[Tensor, "C D"], weight: Float[Tensor, "V D"], head: Head) -> Float32[Tensor, "C V"]:
    with torch.autocast(hidden.device.type, enabled=False):
        logits = _product(hidden, weight.T)
    if head.scale != 1.0:
        logits.mul_(head.scale)
    if head.softcap is not None:
        logits.div_(head.softcap).tanh_().mul_(head.softcap)
    return logits if head.temperature == 1.0 else logits.div_(head.temperature)


def _logits_gradient(
    hidden: Float[Tensor, "C D"],
    weight: Float[Tensor, "V D"],
    targets: Int64[Tensor, " C"],
    lse_and_gradient: tuple[Float32[Tensor, " C"], Float32[Tensor, " C"]],
    head: Head,
) -> Float[Tensor, "C V"]:
    """d(loss)/d(hidden @ weight.T) from d(log p)/dz = onehot - p, with p from the saved log-sum-exp."""
    lse, gradient = lse_and_gradient
    logits = _logits(hidden, weight, head)
    slope = None if head.softcap is None else 1.0 - (logits * (head.temperature / head.softcap)).square()
    logits.sub_(lse[:, None]).exp_().mul_(-gradient[:, None])
    logits[torch.arange(len(targets), device=targets.device), targets] += gradient
    if slope is not None:
        logits.mul_(slope)
    if head.scale != head.temperature:
        logits.mul_(head.scale / head.temperature)
    return logits.to(weight.dtype)
