"""The run page in a real browser, over a run that moves exactly when a test says so."""

from __future__ import annotations

import hashlib
import re
import signal

import httpx2
import pytest
from playwright.sync_api import Locator, Page, expect

from api.lifecycle import JobState
from tests.dashboard.conftest import Service
from tests.dashboard.runs import Feed

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


def edges_of(zoom: str) -> list[float]:
    return [float(edge) for edge in zoom.split(":")]


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
    expect(link).to_have_text("Tokens near step 19")
    expect(link).to_have_attribute("href", f"tokens?run={run.id}&step=19")
    box = page.locator(f"{ENTROPY} canvas.overlay").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + 60)
    expect(link).to_have_text(re.compile(r"Tokens near step (9|10|11)$"))


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


def test_a_browser_that_cannot_reach_the_api_is_told_which_address_it_needs(
    page: Page, dashboard_url: str, feed: Feed, service: Service
) -> None:
    run = feed.begin("unreachable")
    page.route(f"{service.url}/**", lambda route: route.abort())

    page.goto(f"{dashboard_url}/run?run={run.id}")

    expect(page.locator(".status")).to_contain_text(f"this browser asks {service.url}", timeout=10_000)


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


def test_a_run_is_opened_from_the_list_by_its_link(page: Page, dashboard_url: str, feed: Feed) -> None:
    run = feed.begin("from-the-list")
    run.take_steps(3)
    page.goto(f"{dashboard_url}/?search=from-the-list")
    table = page.get_by_test_id("stDataFrame")
    expect(table).to_be_visible()
    box = table.bounding_box()
    assert box is not None

    page.mouse.click(box["x"] + 80, box["y"] + 54)  # the first row's name; the grid is drawn on a canvas

    expect(page).to_have_url(re.compile(rf"/run\?run={run.id}$"))
    expect_points(page, ENTROPY, 3)


def test_runs_that_are_ticked_in_the_list_are_compared(page: Page, dashboard_url: str, feed: Feed) -> None:
    runs = [feed.begin(f"ticked-{number}") for number in range(2)]
    for run in runs:
        run.take_steps(3)
    page.goto(f"{dashboard_url}/?search=ticked")
    table = page.get_by_test_id("stDataFrame")
    expect(table).to_be_visible()
    box = table.bounding_box()
    assert box is not None

    for row in range(2):
        page.mouse.click(box["x"] + 20, box["y"] + 54 + 38 * row)
    page.get_by_role("button", name="Compare 2").click()

    expect(page).to_have_url(re.compile(r"/compare\?runs="))
    for run in runs:
        expect(page.get_by_text(f"{run.id[-6:]}").first).to_be_visible()


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


def test_the_system_page_says_what_is_not_well(page: Page, dashboard_url: str) -> None:
    page.goto(f"{dashboard_url}/system")

    expect(page.locator("strong", has_text="Database")).to_be_visible()
    expect(page.get_by_text("no worker gave a sign of life")).to_be_visible()
