"""A run's page as the tests reach it: its panels, its head, and what a reader does to them."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

ENTROPY = 'figure[data-panel="policy/entropy"]'
MASK = 'figure[data-panel="mask/ppm"]'
REWARD = 'figure[data-panel="reward/mean"]'
BOARD = ".board"
SHIFTS = """() => {
    window.shift = 0;
    const add = (list) => list.getEntries().forEach((entry) => (window.shift += entry.value));
    new PerformanceObserver(add).observe({ type: "layout-shift" });
}"""


def open_run(page: Page, dashboard_url: str, job_id: str) -> None:
    page.goto(f"{dashboard_url}/run?run={job_id}")
    expect(page.locator(ENTROPY)).to_have_attribute("data-num-points", re.compile(r"\d+"))


def expect_points(page: Page, panel: str, count: int) -> None:
    expect(page.locator(panel)).to_have_attribute("data-num-points", str(count), timeout=8_000)


def zoom_of(page: Page) -> str:
    """The stretch that is shown, once there is one."""
    expect(page.locator(ENTROPY)).to_have_attribute("data-zoom", re.compile(r"^\d.*:\d"))
    return page.locator(ENTROPY).get_attribute("data-zoom") or ""


def fact(page: Page, name: str) -> Locator:
    return page.locator(f'.head [data-fact="{name}"]')


def drag(page: Page, panel: str, start: float, end: float) -> None:
    """Drags over a panel's plot between two shares of its width."""
    plot = page.locator(f"{panel} canvas.overlay")
    plot.scroll_into_view_if_needed()
    box = plot.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + start * box["width"], box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + end * box["width"], box["y"] + 80, steps=4)
    page.mouse.up()
