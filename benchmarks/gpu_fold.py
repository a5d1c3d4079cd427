"""The head's statistics by the Triton fold beside those by the torch fold: values, gradients, time and memory.

Knows the autograd function, which is the trainer's own, and both folds; everything around the fold is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.stopwatch import spread
from stapo_core import token_stats as head_room
from stapo_core.batch import TokenStats
from stapo_core.token_stats import Head, token_stats, torch_fold

Fold = Callable[[Tensor, Tensor], None]
_STATISTIC_LIMIT = 2e-5
"""Statistics are float32 whatever the inputs are."""
_GRADIENT_LIMIT = {torch.float32: 2e-5, torch.bfloat16: 2.0**-7}
"""Gradients come in the inputs' precision: in bfloat16 one rounding can lie between them."""


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of the pass, and how often it is timed."""

    num_tokens: int
    vocabulary: int
    width: int
    num_rounds: int


FULL = Scale(num_tokens=8192, vocabulary=151_936, width=1024, num_rounds=5)
SMALL = Scale(num_tokens=24, vocabulary=2500, width=64, num_rounds=1)


@dataclass(slots=True)
class Inputs:
    """Hidden states, head, targets, and the gradient that comes back."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    pushed: Tensor


@dataclass(frozen=True, slots=True)
class Differences:
    """The largest of each: relative to the token's own value, for gradients to the largest element."""

    logprobs: float
    entropies: float
    sum_squares: float
    hidden_gradient: float
    weight_gradient: float

    def is_within(self, dtype: torch.dtype) -> bool:
        """Whether rounding explains them; what is not a number is not within."""
        statistic = (self.logprobs, self.entropies, self.sum_squares)
        gradient = (self.hidden_gradient, self.weight_gradient)
        return all(x <= _STATISTIC_LIMIT for x in statistic) and all(x <= _GRADIENT_LIMIT[dtype] for x in gradient)


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall-clock ms of each round, and 10^6 bytes at the peak beyond inputs and gradients; a GPU alone counts those."""

    forward_ms: list[float]
    both_ms: list[float]
    beyond_mb: float | None


def compare_folds(scale: Scale, device: torch.device, console: Console) -> bool:
    """Prints values, time and memory of both folds in both precisions; whether the values agree."""
    from stapo_core.token_stats import triton_fold  # only now: TRITON_INTERPRET is read when the kernel is made

    folds: dict[str, Fold] = {"torch": torch_fold.fold, "Triton": triton_fold.fold}
    sizes = f"{scale.num_tokens:,} tokens, {scale.vocabulary:,} words, width {scale.width:,}"
    costs = Table(title=f"{sizes}; ms: median [least, most]")
    for column in ("precision", "fold", "forward, ms", "forward + backward, ms", "memory beyond, MB"):
        costs.add_column(column, justify="right")
    values = Table(title="Largest relative difference, Triton against torch")
    for column in ("precision", *(each.name.replace("_", " ") for each in fields(Differences)), "verdict"):
        values.add_column(column, justify="right")
    agree = True
    for dtype in (torch.bfloat16, torch.float32):
        precision = str(dtype).removeprefix("torch.")
        inputs = draw(scale, device, dtype)
        found = compare(inputs, folds["Triton"], folds["torch"])
        is_within = found.is_within(dtype)
        agree = agree and is_within
        numbers = (f"{getattr(found, each.name):.1e}" for each in fields(found))
        values.add_row(precision, *numbers, "agree" if is_within else "DIFFER")
        for name, cost in _measure(inputs, folds, scale.num_rounds).items():
            beyond = "-" if cost.beyond_mb is None else f"{cost.beyond_mb:,.0f}"
            costs.add_row(precision, name, spread(cost.forward_ms), spread(cost.both_ms), beyond)
    console.print(values)
    console.print(costs)
    return agree


def draw(scale: Scale, device: torch.device, dtype: torch.dtype) -> Inputs:
    """Random inputs whose logits have a standard deviation of 1.6 at every width."""
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(scale.num_tokens, scale.width, generator=source)
    weight = torch.randn(scale.vocabulary, scale.width, generator=source).mul_(1.6 / scale.width**0.5)
    targets = torch.randint(0, scale.vocabulary, (scale.num_tokens,), generator=source)
    pushed = torch.randn(scale.num_tokens, generator=source)
    leaves = [each.to(device, dtype).requires_grad_() for each in (hidden, weight)]
    return Inputs(leaves[0], leaves[1], targets.to(device), pushed.to(device))


def compare(inputs: Inputs, fold: Fold, reference: Fold) -> Differences:
    """Statistics and gradients by `fold` beside those by `reference`, on the same inputs."""
    found, wanted = _values(inputs, fold), _values(inputs, reference)
    relative = [((a - b).abs() / b.abs()).max().item() for a, b in zip(found[:3], wanted[:3], strict=True)]
    gradients = [
        ((a.float() - b.float()).abs().max() / b.float().abs().max()).item()
        for a, b in zip(found[3:], wanted[3:], strict=True)
    ]
    return Differences(*relative, *gradients)


def _values(inputs: Inputs, fold: Fold) -> list[Tensor]:
    stats = _forward(inputs, fold)
    gradients = torch.autograd.grad(stats.logprobs, (inputs.hidden, inputs.weight), inputs.pushed)
    return [stats.logprobs.detach(), stats.entropies, stats.sum_squares, *gradients]


def _forward(inputs: Inputs, fold: Fold) -> TokenStats:
    """The trainer's own pass, with this fold in the place of the one that it would choose for the device."""
    with mock.patch.object(head_room, "_choose_fold", return_value=fold):
        return token_stats(inputs.hidden, Head(inputs.weight), inputs.targets)


def _measure(inputs: Inputs, folds: dict[str, Fold], num_rounds: int) -> dict[str, Cost]:
    """Both folds, their order alternating; they are warm, for their values have been compared."""
    costs = {name: Cost([], [], _beyond_mb(inputs, fold)) for name, fold in folds.items()}
    for number in range(num_rounds):
        for name in costs if number % 2 == 0 else reversed(costs):
            fold = folds[name]
            with torch.no_grad():
                costs[name].forward_ms.append(_milliseconds(partial(_forward, inputs, fold), inputs.hidden.device))
            costs[name].both_ms.append(_milliseconds(partial(_values, inputs, fold), inputs.hidden.device))
    return costs


def _milliseconds(work: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    started = time.perf_counter()
    work()
    _finish(device)
    return 1000 * (time.perf_counter() - started)


def _beyond_mb(inputs: Inputs, fold: Fold) -> float | None:
    if not inputs.hidden.is_cuda:
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients = sum(each.numel() * each.element_size() for each in (inputs.hidden, inputs.weight))
    _values(inputs, fold)
    return (torch.cuda.max_memory_allocated() - before - gradients) / 1e6


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
