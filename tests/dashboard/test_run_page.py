"""What stands around the curves of a run page, and what becomes of it when the API falls silent."""

from __future__ import annotations

import hashlib
import re
import signal
import time
from datetime import UTC, datetime

import httpx2
from playwright.sync_api import Browser, Page, expect

from api.lifecycle import JobState
from tests.dashboard.board import BOARD, ENTROPY, drag, expect_points, fact, open_run, zoom_of
from tests.dashboard.conftest import Service
from tests.dashboard.runs import Feed


def test_the_head_tells_where_a_run_stands_and_follows_it(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("header")
    run.evaluate(0.25)
    run.take_steps(19)
    open_run(page, dashboard_url, run.id)
    expect(page.get_by_role("heading", name="header")).to_be_visible()
    expect(page.locator(".where")).to_contain_text(f"tiny · stapo · on worker-1 · cpu · {run.id}")

    run.take_steps(1)

    expect(fact(page, "step")).to_have_text("20 / 40")
    expect(fact(page, "reward")).to_have_text("0.632")  # 1 - exp(-20/20)
    expect(fact(page, "validation")).to_have_text("0.25")
    expect(fact(page, "masked")).to_have_text("0 ppm")
    expect(fact(page, "attempt")).to_have_text("1")
    expect(fact(page, "updated")).to_contain_text("s ago")
    expect(page.locator(".head .word")).to_have_text("Running")


def test_an_open_page_asks_nothing_of_its_own_server_while_the_run_goes_on(
    page: Page, dashboard_url: str, feed: Feed
) -> None:
    run = feed.begin("quiet")
    run.take_steps(2)
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(frame)))
    open_run(page, dashboard_url, run.id)
    expect_points(page, ENTROPY, 2)
    page.get_by_role("tab", name="Configuration").click()
    expect(page.get_by_text("training_file").first).to_be_visible()
    page.wait_for_timeout(1000)
    before = len(sent)

    for _ in range(5):
        run.take_steps(1)
        page.wait_for_timeout(200)

    expect(fact(page, "step")).to_have_text("7 / 40")
    assert len(sent) == before


def test_an_api_that_takes_questions_and_answers_none_is_noticed(
    page: Page, dashboard_url: str, feed: Feed, service: Service
) -> None:
    run = feed.begin("hangs")
    run.take_steps(2)
    page.clock.install()
    open_run(page, dashboard_url, run.id)
    expect(page.locator(BOARD)).to_have_attribute("data-stream", "live")

    service.process.send_signal(signal.SIGSTOP)
    try:
        page.clock.run_for(16_000)
        page.wait_for_timeout(200)
        page.clock.run_for(12_000)
        expect(page.get_by_text("The API does not answer.")).to_be_visible(timeout=15_000)
    finally:
        service.process.send_signal(signal.SIGCONT)


def test_curves_go_on_without_a_gap_when_the_api_returns(
    page: Page, dashboard_url: str, feed: Feed, service: Service
) -> None:
    run = feed.begin("outage")
    run.take_steps(5)
    open_run(page, dashboard_url, run.id)
    expect(page.locator(BOARD)).to_have_attribute("data-stream", "live")
    drag(page, ENTROPY, 0.2, 0.8)

    zoom = zoom_of(page)
    with service.gone():
        run.take_steps(4)
        expect(page.locator(BOARD)).to_have_attribute("data-stream", "waiting")
        expect(page.get_by_text("The API does not answer.")).to_be_visible(timeout=15_000)

    expect(page.locator(ENTROPY)).to_have_attribute("data-num-points", "9", timeout=20_000)
    assert page.locator(ENTROPY).get_attribute("data-zoom") == zoom
    expect(page.get_by_text("The API does not answer.")).to_be_hidden(timeout=15_000)


def test_a_run_that_gives_no_news_for_long_says_so(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("stalls")
    run.take_steps(2)
    page.clock.install()
    open_run(page, dashboard_url, run.id)
    expect(page.locator(".notice")).not_to_contain_text("No news")

    page.clock.fast_forward(70_000)

    expect(page.locator(".notice")).to_contain_text("No news for 1 min")
    expect(page.locator(".notice")).to_contain_text("the last step took 1 s")  # 0.5 s, rounded
    run.take_steps(1)
    page.clock.set_system_time(time.time())
    expect(page.locator(".notice")).not_to_contain_text("No news")


def test_a_page_that_stays_open_gets_another_ticket_before_its_own_lapses(
    page: Page, dashboard_url: str, feed: Feed
) -> None:
    run = feed.begin("stays-open")
    run.take_steps(2)
    tickets: list[str] = []
    page.on("request", lambda request: tickets.extend(re.findall(r"ticket=([^&]+)", request.url)))
    page.clock.install()
    open_run(page, dashboard_url, run.id)
    assert len(set(tickets)) == 1

    page.clock.fast_forward(3_560_000)  # a ticket is good for an hour

    for _ in range(40):
        page.wait_for_timeout(250)
        page.clock.run_for(5_000)  # the page asks how the job stands four times a minute
        if len(set(tickets)) > 1:
            break
    assert len(set(tickets)) == 2
    expect(page.locator(BOARD)).to_have_attribute("data-stream", "live")


def test_a_browser_that_cannot_reach_the_api_is_told_which_address_it_needs(
    page: Page, dashboard_url: str, feed: Feed, service: Service
) -> None:
    run = feed.begin("unreachable")
    page.route(f"{service.url}/**", lambda route: route.abort())

    page.goto(f"{dashboard_url}/run?run={run.id}")

    expect(page.locator(".status")).to_contain_text(f"this browser asks {service.url}", timeout=10_000)


def test_the_page_learns_that_the_run_has_ended(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("ends")
    run.take_steps(3)
    open_run(page, dashboard_url, run.id)

    run.settle(JobState.SUCCEEDED)

    expect(page.locator(BOARD)).to_have_attribute("data-stream", "ended", timeout=8_000)
    expect(page.locator(".head .word")).to_have_text("Succeeded")
    expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
    expect_points(page, ENTROPY, 3)


def test_a_download_link_of_the_page_gives_the_file_of_the_digest_beside_it(
    page: Page, dashboard_url: str, feed: Feed
) -> None:
    run = feed.begin("saves")
    run.take_steps(2)
    digest = run.save(b"weights" * 1000, final=True)
    open_run(page, dashboard_url, run.id)
    page.get_by_role("tab", name="Checkpoints").click()

    link = page.get_by_role("link", name="model.safetensors").get_attribute("href")

    assert link is not None
    assert hashlib.sha256(httpx2.get(link).content).hexdigest() == digest
    expect(page.get_by_text(digest)).to_be_visible()


def test_the_api_key_never_reaches_the_browser(page: Page, dashboard_url: str, feed: Feed, service: Service) -> None:
    run = feed.begin("secret")
    run.take_steps(2)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(f"{request.url} {request.headers}"))
    page.on("websocket", lambda socket: socket.on("framereceived", lambda frame: sent.append(str(frame))))

    open_run(page, dashboard_url, run.id)

    expect_points(page, ENTROPY, 2)
    assert any("/metrics" in line for line in sent)
    assert not [line for line in sent if service.api_key in line]


def test_the_page_asks_nobody_but_the_platform(page: Page, dashboard_url: str, feed: Feed, service: Service) -> None:
    run = feed.begin("offline")
    run.take_steps(2)
    asked: set[str] = set()
    page.on("request", lambda request: asked.add(request.url))

    open_run(page, dashboard_url, run.id)
    page.goto(dashboard_url)
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()

    strangers = {url for url in asked if not url.startswith((dashboard_url, service.url, "data:", "blob:"))}
    assert not strangers


def test_text_from_outside_is_shown_as_text(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("hostile")
    run.take_steps(1)
    hostile = '<img src=x onerror="window.pwned=1"> **bold** :red[x] $x^2$ \u202edrow'
    run.settle(JobState.FAILED, error={"code": "crash", "message": hostile, "param": None, "stage": "learning"})

    open_run(page, dashboard_url, run.id)

    alert = page.get_by_test_id("stAlert")
    expect(alert).to_contain_text("<img src=x")
    expect(alert).to_contain_text("**bold** :red[x] $x^2$")
    assert alert.locator("img, strong").count() == 0
    assert page.evaluate("window.pwned") is None


def test_the_links_of_an_ended_run_s_manifest_are_made_anew_before_they_lapse(
    page: Page, dashboard_url: str, feed: Feed
) -> None:
    run = feed.begin("long-read")
    run.take_steps(2)
    run.settle(JobState.SUCCEEDED)
    sent: list[object] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(frame)))
    page.clock.install()
    page.goto(f"{dashboard_url}/run?run={run.id}&tab=Manifest")
    expect(page.get_by_role("link", name="metrics.csv")).to_be_visible()
    page.clock.run_for(2_000)
    before = len(sent)

    page.clock.run_for(61_000)  # a ticket is exchanged 90 s before its end

    page.wait_for_timeout(500)
    assert len(sent) > before


def test_times_are_told_in_one_form_with_their_zone_wherever_the_reader_is(
    browser: Browser, dashboard_url: str, feed: Feed
) -> None:
    run = feed.begin("far-away")
    run.take_steps(2)
    run.settle(JobState.SUCCEEDED)
    ended = datetime.fromtimestamp(feed.client.get_job(run.id)["finished_at"] or 0, UTC)
    page = browser.new_context(locale="de-DE", timezone_id="Asia/Tokyo").new_page()

    open_run(page, dashboard_url, run.id)

    expect(page.locator(".notice")).to_have_text(f"Ended {ended:%Y-%m-%d %H:%M:%S} UTC")
    expect(page.locator(".readout")).to_contain_text("since the first point")
    page.context.close()
