"""`python -m tests.chaos COMMAND`: faults by the hundred against the real platform, and whether the promises held.

Each command prints its seed, what it did and what it found; its exit code is 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.chaos.site import Shape, running_site
from tests.chaos.storm import Report, Storm

CONSOLE = Console()


def storm(arguments: Sequence[str]) -> int:
    """Faults at every place and from every side, at once."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos storm", description=storm.__doc__)
    parser.add_argument("--faults", type=int, default=220, help="how many, at least")
    parser.add_argument("--per-phase", type=int, default=0, help="how many in each phase, at least")
    parser.add_argument("--seed", type=int, default=None, help="replays the faults of an earlier storm")
    parser.add_argument("--without", default="", choices=["", "fence", "rename", "truncation"], help="remove a guard")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    report = blow(seed, options.faults, per_phase=options.per_phase, without=options.without)
    show(report, without=options.without)
    return 1 if report.breaches else 0


def blow(seed: int, num_faults: int, *, per_phase: int = 0, without: str = "") -> Report:
    """One storm over a site of its own."""
    CONSOLE.print(f"seed {seed}" + (f", without the {without}" if without else ""))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with running_site(Shape(without=without)) as site, Progress(*columns, console=CONSOLE) as progress:
        task = progress.add_task("faults", total=num_faults)
        return Storm(site, seed=seed, num_faults=num_faults, per_phase=per_phase).run(
            lambda done, total: progress.update(task, completed=done, total=total)
        )


def show(report: Report, *, without: str = "") -> None:
    """The phases with their counts, the ends, the breaches."""
    table = Table("phase", "faults", title=f"storm {report.seed}", title_justify="left")
    for phase, number in sorted(report.hits.items()):
        table.add_row(phase, str(number))
    CONSOLE.print(table)
    ends = ", ".join(f"{number} {state}" for state, number in sorted(report.ends.items()))
    CONSOLE.print(
        f"seed {report.seed}: {report.num_faults} faults over {len(report.hits)} phases in {report.took_s:.0f} s; "
        f"{report.ends.total()} jobs ({ends}), {report.num_attempts} attempts, {report.num_steps} steps; "
        f"{len(report.breaches)} breaches"
    )
    for breach in report.breaches[:20]:
        CONSOLE.print(f"  {breach}", markup=False)


COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {"storm": storm}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("options", nargs=argparse.REMAINDER)
    options = parser.parse_args(arguments)
    return COMMANDS[options.command](options.options)


if __name__ == "__main__":
    sys.exit(main())
