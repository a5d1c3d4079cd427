"""What a call of the sandbox costs: `python -m benchmarks.sandbox`. A one-line function, called once, its value told.

Beside it: the same done by a child that is forked and not caged, and by an interpreter started for it. CPU time counts
all processes that took part; the rounds take turns, so that what the machine does besides falls on all.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from stapo_core.sandbox import landlock
from stapo_core.sandbox.host import Program, Sandbox, find_obstacle

_SOURCE = "def f(x, y): return x + y"
_FORKS = f"""
import json, os, sys
for _ in range(int(sys.argv[1])):
    ours, theirs = os.pipe()
    if os.fork() == 0:
        names = {{}}
        exec({_SOURCE!r}, names)
        os.write(theirs, json.dumps(names["f"](2, 3)).encode())
        os._exit(0)
    os.close(theirs)
    os.read(ours, 99)
    os.close(ours)
    os.wait()
"""
_FRESH = f"{_SOURCE}\nprint(f(2, 3))"


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one call."""

    cpu_ms: float
    wall_ms: float


def main() -> int:
    """The command line; 1 where there is no sandbox."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sandbox", description=__doc__)
    parser.add_argument("--calls", type=int, default=200, help="calls of a round")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if obstacle := find_obstacle():
        print(obstacle, file=sys.stderr)
        return 1
    user = "root, who gives up his user" if os.geteuid() == 0 else "an ordinary user"
    print(f"as {user}; Linux {os.uname().release}, Landlock {landlock.version()}, Python {sys.version.split()[0]}")
    print(f"{asked.rounds} rounds of {asked.calls} calls; median [least, most] of the rounds, in ms a call")
    ways = {"forked, not caged": _forked, "sandbox": _caged, "a fresh interpreter, not caged": _fresh}
    costs: dict[str, list[Cost]] = {name: [] for name in ways}
    for _ in range(asked.rounds):
        for name, way in ways.items():
            costs[name].append(_measure(way, asked.calls))
    for name, found in costs.items():
        cpu, wall = ([getattr(cost, unit) for cost in found] for unit in ("cpu_ms", "wall_ms"))
        print(f"{name:32} CPU {_range(cpu)}   wall {_range(wall)}")
    extra = [_median(costs["sandbox"]) - _median(costs["forked, not caged"])]
    print(f"the cage itself: {extra[0]:.2f} ms of CPU a call")
    print(f"starting the fork server, once for each child of a grader: CPU {_range([_start() for _ in range(5)])}")
    return 0


def _measure(way: Callable[[int], None], num_calls: int) -> Cost:
    """A call's share, without what starting costs: a round of none is taken away."""
    cpu, wall = _spend(way, num_calls)
    none_cpu, none_wall = _spend(way, 0)
    return Cost(1e3 * (cpu - none_cpu) / num_calls, 1e3 * (wall - none_wall) / num_calls)


def _spend(way: Callable[[int], None], num_calls: int) -> tuple[float, float]:
    cpu, wall = _cpu(), time.perf_counter()
    way(num_calls)
    return _cpu() - cpu, time.perf_counter() - wall


def _cpu() -> float:
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _caged(num_calls: int) -> None:
    sandbox = Sandbox()
    for _ in range(num_calls):
        outcome = sandbox.run(Program(_SOURCE, timeout_s=60.0, expressions=("f(2, 3)",)))
        assert outcome.answers[0].value == 5
    sandbox.close()


def _forked(num_calls: int) -> None:
    subprocess.run([sys.executable, "-I", "-S", "-c", _FORKS, str(num_calls)], check=True)


def _fresh(num_calls: int) -> None:
    for _ in range(num_calls):
        subprocess.run([sys.executable, "-I", "-S", "-c", _FRESH], check=True, stdout=subprocess.DEVNULL)


def _start() -> float:
    return 1e3 * _spend(_caged, 0)[0]


def _median(costs: list[Cost]) -> float:
    return statistics.median(cost.cpu_ms for cost in costs)


def _range(values: list[float]) -> str:
    return f"{statistics.median(values):6.2f} [{min(values):.2f}, {max(values):.2f}]"


if __name__ == "__main__":
    sys.exit(main())
