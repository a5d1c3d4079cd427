"""The head's statistics against the naive pass that holds all logits: CPU-seconds and memory, forward and backward.

Knows the autograd function and its naive counterpart. Memory is what the process grows by beyond inputs and
gradients, in a process of its own for each measurement.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.stopwatch import cpu_seconds, peak_mb, spread
from stapo_core.token_stats import Head, token_stats

VOCABULARY, WIDTH = 151_936, 1024


@dataclass(slots=True)
class Inputs:
    """Hidden states, head, targets and the gradient that comes back; gradients are already allocated."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    pushed: Tensor


def naive(inputs: Inputs) -> None:
    """Full logits, log-softmax, the same statistics, backward."""
    log_p = torch.log_softmax(inputs.hidden @ inputs.weight.T, dim=1)
    with torch.no_grad():
        p = log_p.exp()
        _ = -(p * log_p).sum(dim=1)
        _ = (p.square_() * log_p).sum(dim=1), p.sum(dim=1)
        del p
    log_p.gather(1, inputs.targets[:, None]).squeeze(1).backward(inputs.pushed)  # type: ignore[no-untyped-call]


def ours(inputs: Inputs) -> None:
    """One pass in tiles."""
    token_stats(inputs.hidden, Head(inputs.weight), inputs.targets).logprobs.backward(inputs.pushed)  # type: ignore[no-untyped-call]


_WAYS = {"naive": naive, "ours": ours}


def main(num_tokens: int, naive_tokens: int, *, num_rounds: int, threads: int) -> None:
    """Prints memory at both sizes and time at the one where the naive pass fits."""
    torch.set_num_threads(threads)
    console = Console()
    table = Table(title=f"{VOCABULARY:,} words, width {WIDTH}, float32, forward + backward, {threads} thread(s)")
    for column in ("tokens", "way", "CPU-s; median [least, most]", "CPU-s per 1,000 tokens", "memory beyond, MB"):
        table.add_column(column, justify="right")
    seconds = _alternate(naive_tokens, num_rounds)
    for way, measured in seconds.items():
        per_thousand = 1000 * statistics.median(measured) / naive_tokens
        row = (spread(measured), f"{per_thousand:.2f}", f"{_memory(way, naive_tokens, threads):.0f}")
        table.add_row(f"{naive_tokens:,}", way, *row)
    whole = _alternate(num_tokens, 1, ways=("ours",))["ours"][0]
    memory = f"{_memory('ours', num_tokens, threads):.0f}"
    table.add_row(f"{num_tokens:,}", "ours", f"{whole:.2f}", f"{1000 * whole / num_tokens:.2f}", memory)
    logits = num_tokens * VOCABULARY * 4 / 1e6
    table.add_row(f"{num_tokens:,}", "naive", "-", "-", f"above {2 * logits:,.0f} (log p and its gradient)")
    console.print(table)
    ratio = statistics.median(seconds["ours"]) / statistics.median(seconds["naive"])
    console.print(f"ours / naive at {naive_tokens:,} tokens: {ratio:.2f} x in CPU-seconds")


def _alternate(num_tokens: int, num_rounds: int, ways: Sequence[str] = ("naive", "ours")) -> dict[str, list[float]]:
    inputs = draw(num_tokens)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    ours(draw(64))  # the first call of everything
    for number in range(num_rounds):
        for way in ways if number % 2 == 0 else reversed(ways):
            seconds[way].append(cpu_seconds(lambda way=way: _WAYS[way](inputs)))  # type: ignore[misc]
    return seconds


def draw(num_tokens: int) -> Inputs:
    """Random inputs; their gradients exist, as after an earlier micro-batch."""
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_tokens, WIDTH, generator=source).requires_grad_()
    weight = torch.randn(VOCABULARY, WIDTH, generator=source).mul_(0.05).requires_grad_()
    targets = torch.randint(0, VOCABULARY, (num_tokens,), generator=source)
    return Inputs(hidden, weight, targets, torch.randn(num_tokens, generator=source))


def _memory(way: str, num_tokens: int, threads: int) -> float:
    command = [sys.executable, "-m", "benchmarks.token_stats", way, str(num_tokens)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return float(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def memory_beyond(way: str, num_tokens: int) -> float:
    """MB that one forward and backward pass adds at its peak to inputs and gradients (which it allocates itself)."""
    _WAYS[way](draw(8))  # code, threads and the like are not the pass's
    inputs = draw(num_tokens)
    before = peak_mb()
    _WAYS[way](inputs)
    gradients = (inputs.hidden.numel() + inputs.weight.numel()) * 4 / 1e6
    return peak_mb() - before - gradients


if __name__ == "__main__":
    print(memory_beyond(sys.argv[1], int(sys.argv[2])))
