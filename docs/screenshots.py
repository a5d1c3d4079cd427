"""Draws the README's pictures from the newest run of the platform that is up: `.venv/bin/python docs/screenshots.py`.

Needs a Chromium (`stapo doctor --install-browser`).
"""

from __future__ import annotations

import os
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

from client.chromium import find_browser
from client.connection import connect, read_record
from client.state import default_home

IMAGES = Path(__file__).parent / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Takes each page in light and in dark."""
    record = read_record(default_home(os.environ))
    if record is None:
        raise SystemExit("No platform is up: start one with `make demo` or `make up`.")
    with connect(os.environ) as client:
        job_id = client.list_jobs(limit=1)["data"][0]["id"]
    pages = {"runs": "", "run": f"run?run={job_id}"}
    browser_path = find_browser()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=ARGUMENTS)
        for name, path in pages.items():
            for scheme in ("light", "dark"):
                take(browser, f"{record['dashboard_url']}/{path}", IMAGES / f"{name}-{scheme}.png", scheme)
        browser.close()


def take(browser: Browser, url: str, target: Path, scheme: str) -> None:
    """One picture of one page, once its charts have drawn."""
    context = browser.new_context(
        viewport={"width": 1280, "height": 1150 if "run?" in url else 420},
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
