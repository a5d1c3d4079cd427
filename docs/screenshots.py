"""Draws the README's pictures from the newest run of the platform that is up: `.venv/bin/python docs/screenshots.py`.

Needs a Chromium (`stapo doctor --install-browser`).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Browser, sync_playwright

from client.chromium import find_browser
from client.connection import connect, read_record
from client.state import default_home

IMAGES = Path(__file__).parent / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


class Shot(NamedTuple):
    """A page by its path, and how tall a picture of it is."""

    path: str
    height: int


def main() -> None:
    """Takes each page in light and in dark."""
    record = read_record(default_home(os.environ))
    if record is None:
        raise SystemExit("No platform is up: start one with `make demo` or `make up`.")
    with connect(os.environ) as client:
        job_id = client.list_jobs(limit=1)["data"][0]["id"]
        masked = client.list_rollouts(job_id, masked=True, sort="-num_masked", limit=1)["data"]
    step = f"&step={masked[0]['step']}" if masked else ""
    pages = {
        "runs": Shot("", 420),
        "run": Shot(f"run?run={job_id}", 1150),
        "tokens": Shot(f"tokens?run={job_id}{step}", 1180),
        "quadrants": Shot(f"quadrants?run={job_id}{step}", 780),
    }
    browser_path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        for name, shot in pages.items():
            for scheme in ("light", "dark"):
                url = f"{record['dashboard_url']}/{shot.path}"
                take(browser, url, IMAGES / f"{name}-{scheme}.png", scheme, height=shot.height)
        browser.close()


def take(browser: Browser, url: str, target: Path, scheme: str, *, height: int) -> None:
    """One picture of one page, once its charts have drawn."""
    context = browser.new_context(
        viewport={"width": 1280, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(6000)
    page.screenshot(path=target)
    context.close()
    print(target)


if __name__ == "__main__":
    main()
