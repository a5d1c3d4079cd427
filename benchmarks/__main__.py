"""The commands: `python -m benchmarks` measures what fits into a quarter of an hour, its sub-commands one thing each.

`gpu` stands apart: it wants a GPU, and none of the peers; so does `validation`, which measures no trainer.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.trainer import Plan


def main() -> int:
    """Runs what is asked for; 1 when an oracle disagrees, 2 when a GPU is wanted and not there."""
    asked = _parse()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads: threads that spin would count as work
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", "140")  # tables stay whole in a file
    if asked.command == "gpu":
        return _gpu(asked)
    if asked.command == "validation":
        from benchmarks import validation

        validation.main(asked.gigabytes, kind=asked.kind)
        return 0
    if asked.command == "dashboard":
        from benchmarks import dashboard

        dashboard.main(num_steps=asked.steps or 100_000, num_rounds=asked.rounds or 3, seconds=asked.seconds or 30)
        return 0
    if asked.command == "load":
        from benchmarks import load

        return load.main(rate=asked.rate, num_streams=asked.streams, seconds=asked.seconds or 60)
    if asked.command == "watch":
        from benchmarks import watch

        return watch.main(seconds=asked.seconds or 30, num_steps=asked.steps or 1_000_000)
    if asked.verl:
        from benchmarks import oracles_verl

        return oracles_verl.main()
    from benchmarks import diagnostics, oracles, token_stats, trainer

    wants = [asked.command] if asked.command != "all" else ["oracles", "token_stats", "diagnostics", "trainer"]
    code = 0
    if "oracles" in wants:
        code = oracles.main()
    if "token_stats" in wants:
        rounds = asked.rounds or 2
        token_stats.main(asked.tokens, asked.naive_tokens, num_rounds=rounds, threads=asked.threads)
    if "diagnostics" in wants:
        diagnostics.main(asked.size or "tiny", num_steps=asked.steps or 6, threads=asked.threads)
    if "trainer" in wants:
        trainer.compare(_plans(asked), threads=asked.threads)
    return code


def _gpu(asked: argparse.Namespace) -> int:
    os.environ["TRITON_INTERPRET"] = "1" if asked.device == "cpu" else "0"  # read when the kernel is made
    if asked.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the trainer takes a GPU wherever it sees one
    from benchmarks import gpu

    return gpu.main(
        asked.device, small=asked.small, num_steps=asked.steps, num_rounds=asked.rounds, threads=asked.threads
    )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = ["all", "trainer", "token_stats", "diagnostics", "oracles", "gpu"]
    commands += ["validation", "dashboard", "load", "watch"]
    parser.add_argument("command", nargs="?", default="all", choices=commands)
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more than one needs an idle machine")
    parser.add_argument("--size", choices=("tiny", "42m"), help="trainer, diagnostics: one size alone")
    parser.add_argument("--workload", choices=("fixed", "natural", "long"), help="trainer: one workload alone")
    parser.add_argument(
        "--algorithm", choices=("dapo", "stapo"), default="dapo", help="trainer: ours; the peer's is dapo"
    )
    parser.add_argument("--steps", type=int, help="steps of each process; the first is dropped")
    parser.add_argument("--rounds", type=int, help="processes of each trainer, or passes of each way")
    parser.add_argument("--full", action="store_true", help="trainer: both sizes and all workloads, half an hour")
    parser.add_argument("--tokens", type=int, default=8192, help="token_stats: the size that ours is measured at")
    parser.add_argument("--naive-tokens", type=int, default=512, help="token_stats: the size that both are measured at")
    parser.add_argument("--seconds", type=int, help="dashboard, load, watch: how long it is measured; 30, 60, 30")
    parser.add_argument("--rate", type=int, default=200, help="load: requests per second")
    parser.add_argument("--streams", type=int, default=500, help="load: streams that are open meanwhile")
    parser.add_argument("--verl", action="store_true", help="oracles: against verl alone, in an environment of its own")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="gpu: cpu needs --small")
    parser.add_argument("--small", action="store_true", help="gpu: toy sizes, to try the code out")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="validation: the size of the file")
    parser.add_argument("--kind", choices=("plain", "gzip", "zstd"), default="plain", help="validation: its format")
    asked = parser.parse_args()
    if asked.command == "gpu" and asked.device == "cpu" and not asked.small:
        parser.error("the interpreter would take hours at full size: add --small")
    if asked.verl and asked.command != "oracles":
        parser.error("--verl goes with oracles")
    if asked.command == "gpu" and asked.steps is not None and asked.steps < 2:
        parser.error("the first step is dropped: --steps must be at least 2")
    return asked


def _plans(asked: argparse.Namespace) -> list[Plan]:
    from benchmarks.trainer import FULL, QUICK

    plans = FULL if asked.full or asked.size else QUICK
    return [
        replace(
            plan,
            num_steps=asked.steps or plan.num_steps,
            num_rounds=asked.rounds or plan.num_rounds,
            algorithm=asked.algorithm,
        )
        for plan in plans
        if asked.size in (None, plan.size) and asked.workload in (None, plan.workload)
    ]


if __name__ == "__main__":
    sys.exit(main())
