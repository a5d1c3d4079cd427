"""From the list of runs to one run, to several, and to the platform itself, in a real browser."""

from __future__ import annotations

import re

from playwright.sync_api import FloatRect, Page, expect

from tests.dashboard.board import ENTROPY, expect_points
from tests.dashboard.runs import Feed

# The words above the table are there before the table is, and a click on one that goes is lost.
TALLER = "height => document.querySelector('[data-testid=stDataFrame]')?.clientHeight > height"


def table_box(page: Page) -> FloatRect:
    """Where the table is; it is drawn on a canvas, so rows are hit by their place."""
    table = page.get_by_test_id("stDataFrame").first
    expect(table).to_be_visible()
    box = table.bounding_box()
    assert box is not None
    return box


def test_a_run_is_opened_from_the_list_by_its_link(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("from-the-list")
    run.take_steps(3)
    page.goto(f"{dashboard_url}/?search=from-the-list")
    box = table_box(page)

    page.mouse.click(box["x"] + 80, box["y"] + 54)  # the first row's name; the grid is drawn on a canvas

    expect(page).to_have_url(re.compile(rf"/run\?run={run.id}$"))
    expect_points(page, ENTROPY, 3)


def test_runs_that_are_ticked_in_the_list_are_compared(page: Page, dashboard_url: str, feed: Feed) -> None:
    runs = [feed.begin(f"ticked-{number}") for number in range(2)]
    for run in runs:
        run.take_steps(3)
    page.goto(f"{dashboard_url}/?search=ticked")
    box = table_box(page)

    for row in range(2):
        page.mouse.click(box["x"] + 20, box["y"] + 54 + 38 * row)
    page.get_by_role("button", name="Compare 2").click()

    expect(page).to_have_url(re.compile(rf"/compare\?runs={runs[1].id}&runs={runs[0].id}"))
    for run in runs:
        expect(page.get_by_text(f"{run.id[-6:]}").first).to_be_visible()


def test_a_click_opens_the_run_that_the_reader_saw_in_its_row(page: Page, dashboard_url: str, feed: Feed) -> None:
    seen = feed.begin("moves-seen")
    page.goto(f"{dashboard_url}/?search=moves")
    box = table_box(page)
    feed.begin("moves-newer")  # takes the first row with the next look, which the click itself brings on

    page.mouse.click(box["x"] + 80, box["y"] + 54)

    expect(page).to_have_url(re.compile(rf"/run\?run={seen.id}$"))


def test_a_tick_stays_with_its_run_when_another_takes_its_row(page: Page, dashboard_url: str, feed: Feed) -> None:
    older = feed.begin("stays-older")
    page.goto(f"{dashboard_url}/?search=stays")
    box = table_box(page)
    page.mouse.click(box["x"] + 20, box["y"] + 54)
    expect(page.get_by_role("button", name="Compare 1")).to_be_visible()
    newer = feed.begin("stays-newer")
    expect(page.get_by_text("2 shown")).to_be_visible()
    page.wait_for_function(TALLER, arg=box["height"])
    expect(page.get_by_role("button", name="Compare 1")).to_be_visible()
    box = table_box(page)

    page.mouse.click(box["x"] + 20, box["y"] + 54)
    page.get_by_role("button", name="Compare 2").click()

    expect(page).to_have_url(re.compile(r"/compare\?runs="))
    for run in (older, newer):
        expect(page.get_by_text(f"{run.id[-6:]}").first).to_be_visible()


def test_the_system_page_says_what_is_not_well(page: Page, dashboard_url: str) -> None:
    page.goto(f"{dashboard_url}/system")

    expect(page.locator("strong", has_text="Database")).to_be_visible()
    expect(page.get_by_text("gave no sign of life in the last")).to_be_visible()
