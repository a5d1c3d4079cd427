"""What the dashboard costs: time to the first curve, CPU of server and browser while curves are live, a long strip.

Starts a whole platform of its own, stops its worker, and feeds runs step by step as a worker's recorder does. CPU is
the kernel's own account of each process (/proc/PID/stat), as a share of one core.
"""

from __future__ import annotations

import os
import shutil
import signal
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console
from rich.progress import track
from rich.table import Table

from api.store.database import Database
from client.chromium import find_browser
from client.http import Client
from client.running import start_platform
from client.settings import read_settings
from tests.conftest import find_free_port
from tests.dashboard.conftest import BROWSER_ARGUMENTS
from tests.dashboard.recorded import Answer
from tests.dashboard.runs import Feed

TICK = os.sysconf("SC_CLK_TCK")
CHUNK = 1000
LIVE_POINTS = 300
STRIP_TOKENS = 8000
NUM_PAGES = 12
BIG = {"width": 1280, "height": 900}
TWO_CHARTS = {"width": 1280, "height": 620}
"""The first row of panels alone is in sight; panels out of sight are not drawn."""
_FIRST_POINT = """() => new Promise((done) => {
    const look = () => {
        const roots = [...document.querySelectorAll("*")].map((node) => node.shadowRoot).filter(Boolean);
        const panel = roots.map((root) => root.querySelector('[data-panel="policy/entropy"]')).find(Boolean);
        Number(panel?.dataset.numPoints) > 0 ? done(performance.now()) : requestAnimationFrame(look);
    };
    look();
})"""


@dataclass(frozen=True)
class Stage:
    """A platform whose runs go only as we say, and a browser."""

    feed: Feed
    browser: Browser
    dashboard_url: str
    streamlit_pid: int
    api_pid: int


def main(*, num_steps: int, num_rounds: int, seconds: int) -> None:
    """Measures and prints; some minutes, most of them to fill the record of the long run."""
    console = Console()
    with _stage() as stage:
        first = _first_curve(stage, num_steps, num_rounds)
        two = _live(stage, 1, TWO_CHARTS, seconds)
        twelve = _live(stage, NUM_PAGES, BIG, seconds)
        strip = _strip(stage, num_rounds)
    table = Table(title="The dashboard", title_justify="left")
    for column in ("what", "measured", "wanted"):
        table.add_column(column, justify="left" if column == "what" else "right")
    table.add_row(f"first curve of a run of {num_steps:,} steps", _spread(first, "s"), "< 2 s")
    table.add_row("two live charts, a point a second: server of the pages", f"{two.streamlit:.2f} %", "< 2 %")
    table.add_row("… the API's process beside it", f"{two.api:.2f} %", "")
    table.add_row("… the browser's page (renderer)", f"{two.renderers:.2f} %", "< 10 %")
    table.add_row("… all of the browser's processes", f"{two.browser:.2f} %", "")
    table.add_row(f"{NUM_PAGES} open run pages: server of the pages", f"{twelve.streamlit:.2f} %", "< 10 %")
    table.add_row("… the API's process beside it", f"{twelve.api:.2f} %", "")
    table.add_row(f"strip of {STRIP_TOKENS:,} tokens", _spread(strip, "ms"), "< 200 ms")
    console.print(table)
    console.print(f"CPU as a share of one core over {seconds} s; load of the machine {os.getloadavg()[0]:.1f}.")


# --- the stage ----------------------------------------------------------------------------------------------------


@contextmanager
def _stage() -> Iterator[Stage]:
    home = Path(tempfile.mkdtemp(prefix="stapo-bench-"))
    (home / "models" / "tiny").mkdir(parents=True)
    (home / "models" / "tiny" / "config.json").write_text("{}")
    settings = read_settings(
        os.environ | {"STAPO_HOME": str(home)}, api_port=find_free_port(), dashboard_port=find_free_port()
    )
    platform = start_platform(settings)
    assert platform.process is not None
    own = _descendants(platform.process.pid)
    worker = _find(own, "celery")
    os.kill(worker, signal.SIGSTOP)  # it would claim our runs
    try:
        database = Database(_environment(_find(own, "uvicorn"))["STAPO_DATABASE_URL"])
        with Client(platform.api_url, platform.api_key) as client, sync_playwright() as playwright:
            browser_path = find_browser()
            browser = playwright.chromium.launch(
                executable_path=str(browser_path) if browser_path else None, args=BROWSER_ARGUMENTS
            )
            feed = Feed(client, database, home)
            yield Stage(feed, browser, platform.dashboard_url, _find(own, "streamlit"), _find(own, "uvicorn"))
            browser.close()
        database.close()
    finally:
        os.kill(worker, signal.SIGCONT)
        platform.stop()
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _page(stage: Stage, size: dict[str, int], path: str) -> Iterator[Page]:
    context = stage.browser.new_context(viewport={"width": size["width"], "height": size["height"]})
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{stage.dashboard_url}/{path}", wait_until="commit")
    yield page
    context.close()


# --- what is measured ---------------------------------------------------------------------------------------------


def _first_curve(stage: Stage, num_steps: int, num_rounds: int) -> list[float]:
    """Seconds from the navigation to the first drawn points, each time in a fresh browser profile."""
    run = stage.feed.begin("long", num_steps=num_steps + 1)
    for _ in track(range(num_steps // CHUNK), "A run's record is filled"):
        run.take_steps(CHUNK)
    seconds = []
    for _ in range(num_rounds + 1):
        with _page(stage, BIG, f"run?run={run.id}") as page:
            seconds.append(float(page.evaluate(_FIRST_POINT)) / 1000)
    return seconds[1:]  # the first one also warms the server of the pages


@dataclass(frozen=True)
class Shares:
    """Per cent of one core."""

    streamlit: float
    api: float
    renderers: float
    browser: float


def _live(stage: Stage, num_pages: int, size: dict[str, int], seconds: int) -> Shares:
    """CPU while a run reports a step a second and pages of it are open."""
    run = stage.feed.begin(f"live-{num_pages}", num_steps=100_000)
    run.take_steps(LIVE_POINTS)
    with _pages(stage, num_pages, size, f"run?run={run.id}") as pages:
        for page in pages:
            page.evaluate(_FIRST_POINT)
        time.sleep(5.0)
        browser = [pid for pid in _descendants(os.getpid()) if "chrom" in _command(pid)]
        renderers = [pid for pid in browser if "--type=renderer" in _command(pid)]
        groups = [[stage.streamlit_pid], [stage.api_pid], renderers, browser]
        before, started = [_cpu_s(pids) for pids in groups], time.monotonic()
        for second in range(seconds):
            run.take_steps(1)
            time.sleep(max(0.0, started + second + 1 - time.monotonic()))
        wall = time.monotonic() - started
        return Shares(*(100 * (_cpu_s(pids) - at) / wall for pids, at in zip(groups, before, strict=True)))


@contextmanager
def _pages(stage: Stage, num_pages: int, size: dict[str, int], path: str) -> Iterator[list[Page]]:
    if num_pages == 0:
        yield []
        return
    with _page(stage, size, path) as page, _pages(stage, num_pages - 1, size, path) as more:
        yield [page, *more]


def _strip(stage: Stage, num_rounds: int) -> list[float]:
    """Milliseconds to build a response of many tokens, as the strip itself measures."""
    long = Answer([(f" {n}", 0.001 if n % 50 == 0 else 0.5, 0.1) for n in range(STRIP_TOKENS)], 0.7)
    run = stage.feed.begin("strip", record_rollouts_every=2, batch={"num_prompts": 2, "group_size": 2})
    run.take_steps(2)
    run.record([long, Answer([("no", 0.5, 0.5)], -0.7)])
    found = []
    for _ in range(num_rounds):
        with _page(stage, BIG, f"tokens?run={run.id}") as page:
            view = page.locator(f'.strip-view[data-num-tokens="{STRIP_TOKENS}"][data-built-ms]')
            found.append(float(view.get_attribute("data-built-ms") or "nan"))
    return found


def _spread(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.3g} {unit} [{min(values):.3g}, {max(values):.3g}]"


# --- processes, as the kernel tells of them -----------------------------------------------------------------------


def _cpu_s(pids: Sequence[int]) -> float:
    return sum(_per_process(pid, _ticks) for pid in pids) / TICK


def _per_process(pid: int, read: Callable[[int], int]) -> int:
    try:
        return read(pid)
    except OSError:
        return 0  # it has left in between


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])  # user and system, all threads


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _descendants(pid: int) -> list[int]:
    parents = {int(path.name): _per_process(int(path.name), _parent) for path in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def _find(pids: Sequence[int], word: str) -> int:
    return next(pid for pid in pids if word in _command(pid))


def _environment(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
