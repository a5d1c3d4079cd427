"""CPU-seconds, wall-clock seconds and memory of this process, and of single methods in it. Knows no trainer."""

from __future__ import annotations

import re
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from stapo_core.products import multiply


class Stopwatch:
    """Adds up the CPU-seconds of watched methods until the next `lap`."""

    def __init__(self) -> None:
        self.laps: list[dict[str, float]] = []
        self._inside: defaultdict[str, float] = defaultdict(float)
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Counts every call of `owner.method` as `name`."""
        original: Callable[..., Any] = getattr(owner, method)

        @wraps(original)
        def timed(*arguments: Any, **options: Any) -> Any:
            started = time.process_time()
            try:
                return original(*arguments, **options)
            finally:
                self._inside[name] += time.process_time() - started

        setattr(owner, method, timed)

    def lap(self, **more: float) -> None:
        """Ends a step: its CPU and wall-clock seconds, those of the watched methods, and the peak memory so far."""
        cpu, wall = time.process_time(), time.perf_counter()
        self.laps.append(
            {"cpu_s": cpu - self._cpu, "wall_s": wall - self._wall, "peak_mb": peak_mb(), **self._inside, **more}
        )
        self._inside.clear()
        self._cpu, self._wall = time.process_time(), time.perf_counter()


def peak_mb() -> float:
    """The most memory this process has held, in MB (10^6 bytes).

    Not by getrusage: its maximum outlives exec, so that a child would begin at the peak of the process that started it.
    """
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    if found is None:
        raise OSError("this kernel tells no peak memory (VmHWM in /proc/self/status)")
    return int(found[1]) * 1024 / 1e6


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU-seconds of one call."""
    started = time.process_time()
    work()
    return time.process_time() - started


def matmul_rates() -> dict[str, float]:
    """The machine's float32 matrix-product rates in GFLOP per CPU-second: the best of five, by torch and by oneDNN."""
    left, right = torch.randn(2048, 1024), torch.randn(1024, 4096)
    work = 2 * 2048 * 1024 * 4096 / 1e9
    return {
        "torch.mm": work / min(cpu_seconds(lambda: torch.mm(left, right)) for _ in range(5)),
        "oneDNN": work / min(cpu_seconds(lambda: multiply(left, right)) for _ in range(5)),
    }


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median, and the least and the most beside it."""
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"
