"""Our trainer beside TRL's GRPOTrainer: same weights, prompts, budget, threads and arithmetic, one process each.

Knows how to start the two runners and how to read what they wrote. The first step of every process is dropped, the
order alternates, and CPU-seconds are the measure, because wall-clock time belongs to the whole machine.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.stopwatch import matmul_rates, spread
from benchmarks.workloads import GROUP_SIZE, NUM_PROMPTS, SIZES, WORKLOADS, prepare

Lap = dict[str, float]


@dataclass(frozen=True, slots=True)
class Plan:
    """One comparison: which size and workload, how many steps a process takes (the first is dropped), how often."""

    size: str
    workload: str
    num_steps: int
    num_rounds: int
    algorithm: str = "dapo"


QUICK = (
    Plan("tiny", "fixed", 4, 2),
    Plan("tiny", "natural", 4, 2),
    Plan("tiny", "long", 4, 2),
    Plan("42m", "fixed", 3, 1),
)
FULL = (*QUICK, Plan("42m", "natural", 2, 1), Plan("42m", "long", 2, 1))


@dataclass(slots=True)
class Result:
    """All steps of both, without the first of each process."""

    plan: Plan
    ours: list[Lap] = field(default_factory=list)
    trl: list[Lap] = field(default_factory=list)

    def ratio(self, key: str) -> float:
        """TRL's median over ours."""
        return statistics.median(lap[key] for lap in self.trl) / statistics.median(lap[key] for lap in self.ours)

    def matmul_share(self, laps: Sequence[Lap], rate: float) -> float:
        """Useful work of an update (each prompt once, no recomputation, no attention) over what its time could hold."""
        size, workload = SIZES[self.plan.size], WORKLOADS[self.plan.workload]
        tokens = statistics.median(lap["tokens"] for lap in laps)
        body = 6 * size.body_parameters * (tokens + NUM_PROMPTS * workload.prompt_tokens)
        head = 6 * size.vocabulary * size.width * tokens
        return (body + head) / 1e9 / (rate * statistics.median(lap["update_cpu_s"] for lap in laps))


def compare(plans: Sequence[Plan], *, threads: int) -> list[Result]:
    """Runs and prints."""
    console = Console()
    rates = matmul_rates()
    console.print("float32 products, GFLOP per CPU-second: " + ", ".join(f"{k} {v:.0f}" for k, v in rates.items()))
    results = []
    for plan in plans:
        console.print(f"{plan.size}, {plan.workload}: {plan.num_rounds} x {plan.num_steps} steps of each")
        results.append(_measure(plan, threads))
        table = _table(threads)
        _add_rows(table, results[-1], max(rates.values()))
        console.print(table)
    console.print(f"load of the machine at the end: {', '.join(f'{load:.1f}' for load in os.getloadavg())}")
    return results


def _measure(plan: Plan, threads: int) -> Result:
    result = Result(plan)
    with tempfile.TemporaryDirectory(prefix="stapo-bench-") as scratch:
        folder = Path(scratch)
        prepare(folder, SIZES[plan.size], WORKLOADS[plan.workload])
        for number in range(plan.num_rounds):
            order = ("trl", "ours") if number % 2 == 0 else ("ours", "trl")
            for name in order:
                getattr(result, name).extend(run(name, folder, plan.num_steps, plan.algorithm, threads=threads)[1:])
    return result


def run(name: str, folder: Path, num_steps: int, algorithm: str, *, threads: int) -> list[Lap]:
    """The laps of one process. Raises CalledProcessError, with what it said on stderr printed first."""
    options = [algorithm] if name == "ours" else []
    command = [sys.executable, "-m", f"benchmarks.run_{name}", str(folder), str(num_steps), *options]
    # Threads that spin while they wait would count as work.
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)
    done.check_returncode()
    laps: list[Lap] = json.loads((folder / f"{name}.json").read_text())
    return laps


def _table(threads: int) -> Table:
    shape = f"{NUM_PROMPTS} prompts x {GROUP_SIZE} responses"
    table = Table(title=f"One step of {shape}, float32, {threads} thread(s); median [least, most]")
    for column in ("size", "workload", "trainer"):
        table.add_column(column)
    for column in ("CPU-s", "generate", "update", "wall s", "peak MB", "tokens", "matmul"):
        table.add_column(column, justify="right")
    return table


def _add_rows(table: Table, result: Result, rate: float) -> None:
    for name, laps in (("TRL", result.trl), ("ours", result.ours)):
        table.add_row(
            result.plan.size,
            result.plan.workload,
            name,
            *(spread([lap[key] for lap in laps]) for key in ("cpu_s", "generate_cpu_s", "update_cpu_s", "wall_s")),
            f"{max(lap['peak_mb'] for lap in laps):.0f}",
            f"{statistics.median(lap['tokens'] for lap in laps):.0f}",
            f"{result.matmul_share(laps, rate):.0%}",
        )
    ratios = [f"{result.ratio(key):.2f} x" for key in ("cpu_s", "generate_cpu_s", "update_cpu_s", "wall_s", "peak_mb")]
    table.add_row("", "", "TRL / ours", *ratios, style="bold", end_section=True)
