"""What the diagnostics cost, as a share of a step: the report of a step, and the sums that it alone needs.

Knows our runner and the fold. The fold takes its sums of p^2 and p^2 ln p for the diagnostics alone; they are timed
on a tile and counted for every logit of a step.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.stopwatch import cpu_seconds, spread
from benchmarks.trainer import run
from benchmarks.workloads import SIZES, WORKLOADS, prepare

_TILE = (2048, 2048)


def main(size: str, *, num_steps: int, threads: int) -> None:
    """Prints the shares."""
    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory(prefix="stapo-bench-") as scratch:
        folder = Path(scratch)
        prepare(folder, SIZES[size], WORKLOADS["fixed"])
        laps = run("ours", folder, num_steps, "dapo", threads=threads)[1:]
    step = statistics.median(lap["cpu_s"] for lap in laps)
    num_logits = statistics.median(lap["tokens"] for lap in laps) * SIZES[size].vocabulary
    report = [lap["report_cpu_s"] for lap in laps]
    sums = [num_logits * each for each in _seconds_per_logit()]
    table = Table(title=f"{size}, fixed length, {threads} thread(s): {step:.2f} CPU-s per step")
    for column in ("part", "CPU-s; median [least, most]", "share of a step"):
        table.add_column(column)
    for name, seconds in (("report of a step", report), ("sums of p^2 and p^2 ln p", sums)):
        table.add_row(name, spread(seconds, 4), f"{statistics.median(seconds) / step:.2%}")
    both = statistics.median(report) + statistics.median(sums)
    table.add_row("together", f"{both:.4f}", f"{both / step:.2%}", style="bold")
    Console().print(table)


def _seconds_per_logit() -> list[float]:
    """Of the two sums on a tile as the fold takes it, nine times."""
    logits, weights = torch.randn(_TILE), torch.rand(_TILE)
    num_logits = _TILE[0] * _TILE[1]
    return [cpu_seconds(lambda: _two_sums(logits, weights)) / num_logits for _ in range(9)]


def _two_sums(logits: torch.Tensor, weights: torch.Tensor) -> None:
    """What the fold adds for p^2 and p^2 ln p."""
    logits.mul_(weights).sum(dim=1)
    weights.square_().sum(dim=1)
