"""The curves of a run page in a real browser, over a run that moves exactly when a test says so."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.dashboard.board import ENTROPY, MASK, REWARD, SHIFTS, drag, expect_points, fact, open_run, zoom_of
from tests.dashboard.runs import Feed


def test_points_arrive_in_every_curve_without_a_reload(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("arrives")
    run.take_steps(5)
    open_run(page, dashboard_url, run.id)
    page.evaluate("window.mark = 'the same document'")

    page.evaluate(SHIFTS)
    run.take_steps(3)

    expect_points(page, ENTROPY, 8)
    expect_points(page, MASK, 8)
    run.take_steps(1)
    expect_points(page, ENTROPY, 9)
    expect_points(page, MASK, 9)
    assert page.evaluate("window.mark") == "the same document"
    assert page.evaluate("window.shift") == 0, "nothing on the page moves when points arrive"


def test_a_panel_is_turned_logarithmic_and_the_address_says_so(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("turned")
    run.take_steps(4)
    open_run(page, dashboard_url, run.id)
    expect(page.locator(ENTROPY)).to_have_attribute("data-scale", "linear")
    page.locator(f"{ENTROPY} canvas.overlay").focus()

    page.keyboard.press("l")

    expect(page.locator(ENTROPY)).to_have_attribute("data-scale", "log")
    expect(page).to_have_url(re.compile(r"log=policy%2Fentropy"))
    page.reload()
    expect(page.locator(ENTROPY)).to_have_attribute("data-scale", "log")
    page.locator(f"{ENTROPY} .log").click()
    expect(page.locator(ENTROPY)).to_have_attribute("data-scale", "linear")


def test_a_zoom_is_shared_by_all_panels_and_kept_while_points_arrive(
    page: Page, dashboard_url: str, feed: Feed
) -> None:
    run = feed.begin("zoom")
    run.take_steps(20)
    open_run(page, dashboard_url, run.id)
    expect_points(page, ENTROPY, 20)

    drag(page, ENTROPY, 0.4, 0.7)
    zoom = zoom_of(page)
    run.take_steps(6)
    expect_points(page, ENTROPY, 26)

    assert page.locator(ENTROPY).get_attribute("data-zoom") == zoom
    assert page.locator(MASK).get_attribute("data-zoom") == zoom
    low, high = (float(edge) for edge in zoom.split(":"))
    assert 20 * 0.3 < low < 20 * 0.45
    assert 20 * 0.6 < high < 20 * 0.75
    page.locator(f"{MASK} canvas.overlay").dblclick()
    expect(page.locator(ENTROPY)).to_have_attribute("data-zoom", "")


def test_the_keyboard_reaches_zoom_and_crosshair(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("keys")
    run.take_steps(20)
    open_run(page, dashboard_url, run.id)
    expect_points(page, ENTROPY, 20)
    page.locator(f"{ENTROPY} canvas.overlay").focus()

    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".readout")).to_contain_text("Step 19 ")
    expect(page.locator(f"{ENTROPY} .value")).to_have_text("0.237")  # 0.3 exp(-19/40) + 0.05
    page.keyboard.press("+")

    expect(page.locator(ENTROPY)).to_have_attribute("data-zoom", "9.5:19.5")  # half as wide, step 19 held
    page.keyboard.press("0")
    expect(page.locator(ENTROPY)).to_have_attribute("data-zoom", "")


def test_a_click_on_a_step_offers_its_tokens(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("clicked", record_rollouts_every=2)
    run.take_steps(20)
    open_run(page, dashboard_url, run.id)
    expect_points(page, ENTROPY, 20)
    page.locator(f"{ENTROPY} canvas.overlay").focus()

    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Enter")

    link = page.locator(".tokens-link")
    expect(link).to_have_text("Tokens of step 19")
    expect(link).to_have_attribute("href", f"tokens?run={run.id}&step=19")
    box = page.locator(f"{ENTROPY} canvas.overlay").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 60)
    expect(link).to_have_text(re.compile(r"Tokens of step (9|10|11)$"))


def test_steps_that_a_later_attempt_does_again_are_drawn_once(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("restarts")
    run.take_steps(12)
    open_run(page, dashboard_url, run.id)
    expect_points(page, ENTROPY, 12)

    run = run.restart(resume_step=8)
    run.take_steps(2)

    expect_points(page, ENTROPY, 10)
    expect(fact(page, "attempt")).to_have_text("2")


def test_evaluations_are_points_of_the_reward_panel(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("evaluated")
    run.evaluate(0.25)
    run.take_steps(4)
    run.evaluate(0.75)

    open_run(page, dashboard_url, run.id)

    expect_points(page, REWARD, 4)
    expect(page.locator(f"{REWARD} .entry", has_text="validation").locator(".value")).to_have_text("0.75")


def test_of_a_long_run_the_newest_steps_are_asked_for_first_and_none_is_missing(
    page: Page, dashboard_url: str, feed: Feed
) -> None:
    run = feed.begin("long", num_steps=2000)
    run.take_steps(1600)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    open_run(page, dashboard_url, run.id)

    expect_points(page, ENTROPY, 1600)
    wanted = [re.findall(r"(?:from|to)_step=\d+", url) for url in asked if "/metrics?" in url]
    assert wanted == [["from_step=600"], ["to_step=599"]]


def test_a_link_reproduces_zoom_axis_and_smoothing(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("linked")
    run.take_steps(20)
    open_run(page, dashboard_url, run.id)
    expect_points(page, ENTROPY, 20)
    drag(page, ENTROPY, 0.4, 0.7)
    zoom = zoom_of(page)
    address = page.url

    page.goto("about:blank")
    page.goto(address.replace("zoom=", "smoothing=0.9&zoom="))

    expect_points(page, ENTROPY, 20)
    assert [float(edge) for edge in zoom_of(page).split(":")] == pytest.approx(
        [float(e) for e in zoom.split(":")], 0.01
    )
    expect(page.locator(".smoothing output")).to_have_text("0.9")
    page.locator(f"{MASK} canvas.overlay").dblclick()
    expect(page).not_to_have_url(re.compile("zoom="))
