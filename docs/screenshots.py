"""Draws the pictures of the pages from a platform that is up: `.venv/bin/python docs/screenshots.py`.

Takes the newest run named `demo` that has ended (`make demo`), and for the pages of several runs what else is there.
Needs a Chromium (`stapo doctor --install-browser`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from client.chromium import find_browser
from client.connection import connect, read_record
from client.state import default_home

IMAGES = Path(__file__).parent / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SETTLED_MS = 4000


class Shot(NamedTuple):
    """A page by its path, how tall a picture of it is, and what is done on it first."""

    path: str
    height: int
    before: Callable[[Page], None] | None = None


def main() -> None:
    """Takes each page in light and in dark."""
    record = read_record(default_home(os.environ))
    if record is None:
        raise SystemExit("No platform is up: start one with `make demo` or `make up`.")
    with connect(os.environ) as client:
        jobs = client.list_jobs(limit=100)["data"]
        demo = next((job for job in jobs if job["suffix"] == "demo" and job["state"] == "succeeded"), None)
        if demo is None:
            raise SystemExit("There is no run named `demo` that has ended: run `make demo`.")
        masked = client.list_rollouts(demo["id"], masked=True, sort="-num_masked", limit=1)["data"]
    browser_path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(browser_path) if browser_path else None, args=ARGUMENTS
        )
        for name, shot in _shots(demo, jobs, masked).items():
            for scheme in ("light", "dark"):
                url = f"{record['dashboard_url']}/{shot.path}"
                take(browser, url, IMAGES / f"{name}-{scheme}.png", scheme, shot)
        browser.close()


def _shots(demo: dict[str, Any], jobs: list[dict[str, Any]], masked: list[dict[str, Any]]) -> dict[str, Shot]:
    run = f"run={demo['id']}"
    step = f"&step={masked[0]['step']}" if masked else ""
    labels = [f"{job['suffix']} · {job['id'][-6:]}" for job in jobs if job["step"]][:3]
    compared = "&".join(f"runs={quote(label)}" for label in labels)
    return {
        "runs": Shot("", 480),
        "run": Shot(f"run?{run}", 1150),
        "run-records": Shot(f"run?{run}&tab=Checkpoints", 760, lambda page: _scroll(page, page.get_by_role("tablist"))),
        "tokens": Shot(f"tokens?{run}{step}", 1000),
        "thresholds": Shot(
            f"tokens?{run}{step}&tau_p=0.02",
            700,
            lambda page: _scroll(page, page.get_by_role("heading", name="Other thresholds")),
        ),
        "quadrants": Shot(f"quadrants?{run}{step}", 780),
        "compare": Shot(f"compare?{compared}", 1000),
        "new": Shot("new?preset=demo", 1000),
        "playground": Shot(f"playground?{run}&prompt=645%2B178%3D", 860, _ask),
        "system": Shot("system", 760),
    }


def _scroll(page: Page, target: Any) -> None:
    target.first.evaluate("(node) => node.scrollIntoView({ block: 'start' })")
    page.get_by_test_id("stMain").evaluate("(main) => main.scrollBy(0, -80)")  # from under the navigation


def _ask(page: Page) -> None:
    page.get_by_role("button", name="Ask", exact=True).click()
    page.locator(".sampled .panel").nth(1).locator("li").first.wait_for(timeout=120_000)  # told once an answer is whole


def take(browser: Browser, url: str, target: Path, scheme: str, shot: Shot) -> None:
    """One picture of one page, once its charts have drawn."""
    context = browser.new_context(
        viewport={"width": 1280, "height": shot.height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(SETTLED_MS)
    if shot.before is not None:
        shot.before(page)
        page.wait_for_timeout(1000)
    Image.open(io.BytesIO(page.screenshot())).convert("RGB").save(target, optimize=True)
    context.close()
    print(f"{target} {target.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
