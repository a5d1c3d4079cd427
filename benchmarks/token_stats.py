"""The head's statistics against the naive pass that holds all logits: CPU-seconds and memory, forward and backward.

Knows the autograd function and its naive counterpart. Memory is what the process grows by beyond inputs and
gradients, in a process of its own for each measurement.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from benchmarks.stopwatch import cpu_seconds, peak_mb, spread
from stapo_core.token_stats import Head, token_stats

VOCABULARY, WIDTH = 151_936, 1024


@dataclass(slots=True)
class Inputs:
    """Hidden states, head, targets, and the gradient that comes back."""

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    pushed: Tensor


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU-seconds of one forward and backward pass, and what its peak adds to inputs and gradients (10^6 bytes)."""

    cpu_s: float
    beyond_mb: float


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
    """Prints time and memory of both at the size where the naive pass fits, and of ours at the full one."""
    found: dict[str, list[Measured]] = {"naive": [], "ours": []}
    for number in range(num_rounds):
        for way in found if number % 2 == 0 else reversed(found):
            found[way].append(_measure(way, naive_tokens, threads))
    table = Table(title=f"{VOCABULARY:,} words, width {WIDTH}, float32, forward + backward, {threads} thread(s)")
    for column in ("tokens", "way", "CPU-s; median [least, most]", "CPU-s per 1,000 tokens", "memory beyond, MB"):
        table.add_column(column, justify="right")
    for way, measured in found.items():
        _add_row(table, naive_tokens, way, measured)
    _add_row(table, num_tokens, "ours", [_measure("ours", num_tokens, threads)])
    logits = num_tokens * VOCABULARY * 4 / 1e6
    # Log p and its gradient at once, and copies of either.
    table.add_row(f"{num_tokens:,}", "naive", "-", "-", f"above {2 * logits:,.0f}")
    console = Console()
    console.print(table)
    medians = {way: statistics.median(each.cpu_s for each in measured) for way, measured in found.items()}
    console.print(f"ours / naive at {naive_tokens:,} tokens: {medians['ours'] / medians['naive']:.2f} x in CPU-seconds")


def _add_row(table: Table, num_tokens: int, way: str, measured: list[Measured]) -> None:
    seconds = [each.cpu_s for each in measured]
    per_thousand = 1000 * statistics.median(seconds) / num_tokens
    memory = max(each.beyond_mb for each in measured)
    table.add_row(f"{num_tokens:,}", way, spread(seconds), f"{per_thousand:.2f}", f"{memory:,.0f}")


def _measure(way: str, num_tokens: int, threads: int) -> Measured:
    command = [sys.executable, "-m", "benchmarks.token_stats", way, str(num_tokens)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def measure(way: str, num_tokens: int) -> Measured:
    """One forward and backward pass in this process, which must be a fresh one: its peak memory is all it knows."""
    _WAYS[way](draw(64, vocabulary=512))  # code, threads and the like are not the pass's
    inputs = draw(num_tokens)
    before = peak_mb()
    seconds = cpu_seconds(lambda: _WAYS[way](inputs))
    gradients = (inputs.hidden.numel() + inputs.weight.numel()) * 4 / 1e6
    return Measured(seconds, peak_mb() - before - gradients)


def draw(num_tokens: int, vocabulary: int = VOCABULARY) -> Inputs:
    """Random inputs without gradients."""
    source = torch.Generator().manual_seed(0)
    hidden = torch.randn(num_tokens, WIDTH, generator=source).requires_grad_()
    weight = torch.randn(vocabulary, WIDTH, generator=source).mul_(0.05).requires_grad_()
    targets = torch.randint(0, vocabulary, (num_tokens,), generator=source)
    return Inputs(hidden, weight, targets, torch.randn(num_tokens, generator=source))


if __name__ == "__main__":
    print(json.dumps(asdict(measure(sys.argv[1], int(sys.argv[2])))))
