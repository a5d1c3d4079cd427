"""`python -m tests.chaos COMMAND`: faults by the hundred against the real platform, and whether the promises held.

Each command prints its seed, what it did and what it found; its exit code is 1 when a promise was broken.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from api.settings import Settings
from client.servers import start_postgres
from tests.chaos import claims, crashes, interruptions, scenes, supervisor, times
from tests.chaos.controls import GUARDS, try_with_and_without
from tests.chaos.faults import plan
from tests.chaos.site import QUICK, Shape, running_site
from tests.chaos.storm import Report, Storm

CONSOLE = Console()
PATIENT = QUICK | {"STALL_S": "300", "MAX_ATTEMPTS": "500"}
SMALL_DISK = [0, 500, 1000, 2000, 3000, 4000, 6000, 9000, 13000, 20000]


def storm(options: argparse.Namespace) -> list[str]:
    """Faults at every place and from every side, at once."""
    seed = options.seed
    faults = plan(options.faults, seed=seed, per_phase=options.per_phase)
    with running_site(Shape(without=options.without)) as site, _progress("faults", len(faults)) as step:
        report = Storm(site, faults, seed=seed).run(step, at_most_s=60.0 * options.minutes)
    _show(report)
    return report.breaches + report.missed


def controls(options: argparse.Namespace) -> list[str]:
    """The same harness with a guard removed: it must find what the guard prevents, and nothing while it stands."""
    with running_site(Shape(num_workers=2)) as site:
        return try_with_and_without(site, options.seed, _say)


def disk(options: argparse.Namespace) -> list[str]:
    """A full disk at each of ten writes; as root also on a real small disk."""
    with running_site() as site:
        scene = scenes.fill_the_disk(site)
    if options.small_disk:
        with running_site() as site:
            small = scenes.fill_a_small_disk(site, SMALL_DISK)
        scene.lines += small.lines
        scene.breaches += small.breaches
    return _tell(scene)


def outages(options: argparse.Namespace) -> list[str]:
    """The broker gone for good, the database away."""
    with running_site() as site:
        found = [
            scenes.lose_the_broker(site, num_jobs=10),
            scenes.lose_the_database(site, away_s=options.away_s, how="stopped"),
            scenes.lose_the_database(site, away_s=4.5, how="frozen"),
        ]
    return [breach for scene in found for breach in _tell(scene)]


def poison(_: argparse.Namespace) -> list[str]:
    """A job that crashes in each attempt, at the product's own number of them."""
    settings = {name: value for name, value in QUICK.items() if name != "MAX_ATTEMPTS"}
    most: int = Settings.model_fields["max_attempts"].default
    with running_site(Shape(num_workers=1, settings=settings)) as site:
        return _tell(scenes.poison(site, max_attempts=most))


def race(options: argparse.Namespace) -> list[str]:
    """Thirty-two claimers, and attempts that are broken off at random."""
    with _postgres() as url, _progress("settled", options.jobs) as step:
        found = claims.race(url, num_jobs=options.jobs, seed=options.seed, on_progress=lambda n: step(n, options.jobs))
    p50, p95, p99 = (1000 * found.latency_s(share) for share in (0.5, 0.95, 0.99))
    broken_off = ", ".join(f"{number} {how}" for how, number in sorted(found.aborted.items()))
    _say(
        f"seed {options.seed}: {claims.NUM_CLAIMERS} claimers, {found.num_jobs:,} jobs, {len(found.claims):,} claims "
        f"(broken off: {broken_off}): {found.num_doubled} doubled, {found.num_lost} lost; "
        f"a claim took p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, all of them at once"
    )
    return [f"{found.num_doubled} doubled, {found.num_lost} lost"] if found.num_doubled or found.num_lost else []


def states(options: argparse.Namespace) -> list[str]:
    """Every state in which a crash may leave a disk while checkpoints are written."""
    with _progress("changes", 1) as step:
        found = crashes.explore(seed=options.seed, per_prefix=options.per_change, on_progress=step)
    _say(
        f"seed {options.seed}: {found.num_states:,} crash states after {found.num_changes} changes of the disk; "
        f"the newest whole checkpoint was missed in {len(found.breaches)}"
    )
    return found.breaches


def recovery(options: argparse.Namespace) -> list[str]:
    """Times at the product's defaults, by events."""
    with running_site(Shape(slots=options.slots, settings={})) as site:
        found = times.measure(site, crashes=options.crashes, rounds=options.rounds, seed=options.seed, on_progress=_say)
    for line in found.lines():
        _say(line)
    return found.breaches


def resume(options: argparse.Namespace) -> list[str]:
    """A real job killed in each of its steps, compared bit for bit with one that was left alone."""
    number = options.steps
    shape = Shape(num_workers=1, slots=1, trainer="real", settings=PATIENT)
    with running_site(shape) as site, _progress("kills", number) as step:
        found = interruptions.interrupt_every_step(site, num_steps=number, on_progress=lambda n: step(n, number))
    cut = f"cut by kill -9 in {len(found.cut_in)} of {number} steps, {found.num_attempts} attempts"
    _say(f"{cut}: {found.num_equal}/{number} steps equal in weights, optimizer, RNG, counters and metrics, bit for bit")
    uncut = sorted(set(range(1, number + 1)) - found.cut_in)
    return [f"step {step}: {differing}" for step, differing in found.differences.items()] + (
        [f"not cut in the steps {uncut}"] if uncut else []
    )


def supervisors(options: argparse.Namespace) -> list[str]:
    """`stapo up` killed at random moments of one job."""
    with _progress("supervisors", options.kills) as step:
        breaches = supervisor.kill_supervisors(
            rounds=options.kills, seed=options.seed, on_progress=lambda n: step(n, options.kills)
        )
    _say(f"seed {options.seed}: {options.kills} supervisors killed in mid-job: {len(breaches)} breaches")
    return breaches


def gate(options: argparse.Namespace) -> list[str]:
    """What a change must pass, in some minutes: the storm beside all that mostly waits."""
    options.jobs, options.per_change, options.away_s = 500, 40, 4.0
    with _aside("storm", "--faults", "205", "--minutes", "10", "--seed", str(options.seed)) as wait:
        return _all([controls, disk, poison, outages, race, states], options) + wait()


def release(options: argparse.Namespace) -> list[str]:
    """The figures of a release: the storm as in the gate, and what measures times alone."""
    options.away_s, options.small_disk = 600.0, os.geteuid() == 0
    with _aside("storm", "--faults", "1000", "--per-phase", "25", "--seed", str(options.seed)) as wait:
        breaches = _all([resume, supervisors, outages, controls, disk, poison, states], options) + wait()
    return breaches + _all([recovery, race], options)


Command = Callable[[argparse.Namespace], list[str]]
COMMANDS: dict[str, Command] = {
    each.__name__: each
    for each in (storm, controls, disk, outages, poison, race, states, recovery, resume, supervisors, gate, release)
}


def _all(parts: Sequence[Command], options: argparse.Namespace) -> list[str]:
    breaches = []
    for part in parts:
        CONSOLE.rule(part.__name__, align="left")
        began = time.monotonic()
        try:
            breaches += [f"{part.__name__}: {breach}" for breach in part(options)]
        except Exception as error:  # one part that breaks off costs no other part its figures
            CONSOLE.print_exception()
            breaches.append(f"{part.__name__} broke off: {error}")
        _say(f"{part.__name__} took {time.monotonic() - began:.0f} s")
    return breaches


@contextmanager
def _aside(command: str, *arguments: str) -> Iterator[Callable[[], list[str]]]:
    """A command in a process of its own meanwhile; what is yielded waits for it, and tells what it said."""
    words = (sys.executable, "-m", "tests.chaos", command, *arguments)
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(words, stdout=said, stderr=said) as process:

        def wait() -> list[str]:
            code = process.wait()
            CONSOLE.rule(command, align="left")
            said.seek(0)
            _say(said.read().rstrip())
            return [f"{command}: exit code {code}, for the reasons above"] if code else []

        try:
            yield wait
        finally:
            if process.poll() is None:
                process.terminate()  # all that it started goes with it


def _show(report: Report) -> None:
    """The phases with their counts, and the ends."""
    table = Table("phase", "faults")
    for phase, number in sorted(report.hits.items()):
        table.add_row(phase, str(number))
    CONSOLE.print(table)
    ends = ", ".join(f"{number} {state}" for state, number in sorted(report.ends.items()))
    _say(
        f"seed {report.seed}: {report.num_faults} faults over {len(report.hits)} phases in {report.took_s:.0f} s; "
        f"{report.ends.total()} jobs ({ends}), {report.num_attempts} attempts, {report.num_steps} steps; "
        f"{len(report.breaches)} lost, doubled or mixed steps or other breaches"
    )


def _tell(scene: scenes.Scene) -> list[str]:
    for line in scene.lines:
        _say(line)
    return scene.breaches


def _say(line: str) -> None:
    CONSOLE.print(line, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=CONSOLE) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def _postgres() -> Iterator[str]:
    """A database at the newest schema, on a server of its own."""
    with tempfile.TemporaryDirectory(prefix="stapo-chaos-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        server = start_postgres(Path(folder))
        try:
            settings = {"STAPO_HOME": folder, "STAPO_DATABASE_URL": server.url, "STAPO_BROKER_URL": "redis://unused"}
            subprocess.run([sys.executable, "-m", "api.store.migrate"], env=os.environ | settings, check=True)
            yield server.url
        finally:
            server.stop()


def main(arguments: list[str] | None = None) -> int:
    """Runs the command that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    told = "; ".join(f"{name}: {(command.__doc__ or '').rstrip('.')}" for name, command in COMMANDS.items())
    parser.add_argument("command", choices=COMMANDS, help=told)
    parser.add_argument("--seed", type=int, help="replays the faults of an earlier run; at random when not given")
    parser.add_argument("--faults", type=int, default=210, help="storm: how many, at least")
    parser.add_argument("--per-phase", type=int, default=0, help="storm: how many in each phase, at least")
    parser.add_argument("--minutes", type=float, default=math.inf, help="storm: how long, at most")
    parser.add_argument("--without", default="", choices=["", *GUARDS], help="storm: remove a guard")
    parser.add_argument("--small-disk", action="store_true", help="disk: also on a tmpfs of 1 MiB (as root)")
    parser.add_argument("--away-s", type=float, default=6.0, help="outages: seconds without a database")
    parser.add_argument("--jobs", type=int, default=10_000, help="race: jobs")
    parser.add_argument("--per-change", type=int, default=60, help="states: how many after each change, at most")
    parser.add_argument("--crashes", type=int, default=50, help="recovery: trainers killed, at least")
    parser.add_argument("--rounds", type=int, default=2, help="recovery: how often every worker is lost and drained")
    parser.add_argument("--slots", type=int, default=2, help="recovery: jobs on each of the three workers")
    parser.add_argument("--steps", type=int, default=40, help="resume: steps of the job")
    parser.add_argument("--kills", type=int, default=25, help="supervisors: how many are killed")
    options = parser.parse_args(arguments)
    options.seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    began = time.monotonic()
    breaches = COMMANDS[options.command](options)
    for breach in breaches[:40]:
        _say(f"BREACH {breach}")
    _say(f"seed {options.seed}: {len(breaches)} promises broken, in {time.monotonic() - began:.0f} s")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
