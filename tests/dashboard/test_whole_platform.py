"""Every page beside a real job: Postgres, Valkey, API, Celery worker and a trainer, as `stapo up` starts them."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
import torch
import transformers
from playwright.sync_api import Page, expect
from sqlalchemy import func, select

from api.store.database import Database
from api.store.tables import Completion
from client.http import Client
from client.running import RunningPlatform
from dashboard.playground import Question
from tests.dashboard.board import BOARD, ENTROPY, MASK, drag, fact, open_run, zoom_of
from tests.stapo_core.tiny import make_model, make_tokenizer

SETTINGS = {
    "algorithm": {"kind": "stapo", "tau_p": 0.02},
    "num_steps": 2000,
    "batch": {"num_prompts": 2, "group_size": 4},
    "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 12},
    "record_rollouts_every": 0,
}
STRIPS = """() => {
    const inside = [...document.querySelectorAll("*")].map((node) => node.shadowRoot?.querySelector(".strip"));
    window.strips = inside.filter(Boolean);
}"""
SHORT = SETTINGS | {"num_steps": 4, "record_rollouts_every": 2, "checkpoint": {"every_steps": 4}}


@pytest.fixture(scope="module")
def client(platform: RunningPlatform) -> Iterator[Client]:
    """A client of the whole platform, which has a tiny base model."""
    folder = platform.home / "models" / "tiny"
    make_model(spread=1.0).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    with Client(platform.api_url, platform.api_key) as client:
        yield client


@pytest.fixture(scope="module")
def problems(platform: RunningPlatform) -> Path:
    """Forty sums."""
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(40)]
    path = platform.home / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def submit(client: Client, problems: Path, name: str, settings: dict[str, object]) -> str:
    grader = {"type": "string_check", "reference": "{{item.answer}}", "operation": "like"}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "config": settings}}
    body = {"model": "tiny", "training_file": client.upload_file(problems)["id"], "suffix": name, "method": method}
    return str(client.create_job(body | {"seed": 7})["id"])  # one that rewards some answers at step 4, not all


@pytest.fixture(scope="module")
def done(client: Client, problems: Path) -> str:
    """A job that has trained four steps, recorded two of them and saved a checkpoint."""
    job_id = submit(client, problems, "done", SHORT)
    for _ in range(600):
        job = client.get_job(job_id)
        if job["finished_at"] is not None:
            break
        time.sleep(0.2)
    assert job["state"] == "succeeded", job["error"]
    return job_id


@pytest.fixture
def job_id(client: Client, problems: Path) -> Iterator[str]:
    """A job that would train for minutes; cancelled at the end."""
    job_id = submit(client, problems, "live", SETTINGS)
    yield job_id
    if client.get_job(job_id)["finished_at"] is None:
        client.cancel_job(job_id)


def count(page: Page, panel: str) -> int:
    return int(page.locator(panel).get_attribute("data-num-points") or 0)


def expect_more(page: Page, panel: str, than: int) -> None:
    page.wait_for_function(
        """([panel, than]) => {
            const roots = [...document.querySelectorAll("*")].map((node) => node.shadowRoot).filter(Boolean);
            const found = roots.map((root) => root.querySelector(panel)).find(Boolean);
            return found && Number(found.dataset.numPoints) > than;
        }""",
        arg=[panel, than],
        timeout=60_000,
    )


def test_a_job_is_watched_zoomed_paused_resumed_and_cancelled_from_its_page(
    page: Page, platform: RunningPlatform, client: Client, job_id: str
) -> None:
    open_run(page, platform.dashboard_url, job_id)
    page.evaluate("window.mark = 'the same document'")
    expect_more(page, ENTROPY, 2)
    expect_more(page, MASK, 2)

    drag(page, ENTROPY, 0.2, 0.9)
    zoom, seen = zoom_of(page), count(page, ENTROPY)
    expect_more(page, ENTROPY, seen + 2)
    expect_more(page, MASK, seen + 2)
    assert zoom_of(page) == zoom

    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Pause the run").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=40_000)
    assert client.get_job(job_id)["state"] == "paused"
    rested = count(page, ENTROPY)

    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Resume the run").click()
    expect_more(page, ENTROPY, rested + 1)
    assert zoom_of(page) == zoom

    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator(BOARD)).to_have_attribute("data-stream", "ended", timeout=40_000)
    expect(page.locator(".head .word")).to_have_text("Cancelled", timeout=15_000)
    assert client.get_job(job_id)["state"] == "cancelled"
    assert page.evaluate("window.mark") == "the same document"


def test_problems_are_uploaded_checked_and_submitted_and_the_run_is_seen_to_begin(
    page: Page, platform: RunningPlatform, client: Client, problems: Path
) -> None:
    page.goto(f"{platform.dashboard_url}/new?preset=demo")
    page.get_by_role("region", name="Training problems").locator("input").set_input_files(str(problems))
    expect(page.get_by_test_id("stBadge").or_(page.get_by_text("Usable")).first).to_be_visible()
    expect(page.get_by_text("40 rows")).to_be_visible()
    page.get_by_role("textbox", name="Name").fill("by-hand")
    page.get_by_role("textbox", name="Name").press("Enter")
    page.get_by_role("button", name="Dry run").click()
    expect(page.get_by_test_id("stMetric").filter(has_text="Responses a step")).to_contain_text("256")

    page.get_by_role("button", name="Submit").click()

    expect(page).to_have_url(re.compile(r"/run\?run=ftjob-"))
    expect(page.get_by_role("heading", name="by-hand")).to_be_visible()
    expect(page.locator(".head .word")).to_have_text("Running", timeout=60_000)
    job_id = re.findall(r"ftjob-\w+", page.url)[0]
    assert client.get_job(job_id)["method"]["reinforcement"]["config"]["batch"]["num_prompts"] == 32
    client.cancel_job(job_id)
    expect(page.locator(".head .word")).to_have_text("Cancelled", timeout=40_000)


def test_a_download_link_of_a_real_checkpoint_gives_the_bytes_of_the_digest_beside_it(
    page: Page, platform: RunningPlatform, done: str
) -> None:
    page.goto(f"{platform.dashboard_url}/run?run={done}&tab=Checkpoints")

    row = page.locator("tr", has_text="model.safetensors")
    link = row.get_by_role("link").get_attribute("href")

    assert link is not None
    digest = hashlib.sha256(httpx2.get(link).content).hexdigest()
    expect(row).to_contain_text(digest)
    expect(fact(page, "step")).to_have_text("4 / 4")


def test_the_sliders_of_a_real_run_start_at_its_own_mask_and_follow_the_apis_simulation(
    page: Page, platform: RunningPlatform, client: Client, done: str
) -> None:
    own, wide = client.simulate_mask(done, step=4), client.simulate_mask(done, step=4, tau_p=0.5)
    silenced = page.get_by_test_id("stMetric").filter(has_text="→ silenced")

    page.goto(f"{platform.dashboard_url}/tokens?run={done}&step=4")
    expect(page.get_by_text("as the run did")).to_be_visible()
    expect(silenced).to_contain_text(f"{own['actual']['num_masked']:,}")
    assert own["simulated"] == own["actual"]
    page.goto(f"{platform.dashboard_url}/tokens?run={done}&step=4&tau_p=0.5")

    expect(silenced).to_contain_text(f"{wide['simulated']['num_masked']:,}")
    assert wide["simulated"]["num_masked"] > own["simulated"]["num_masked"] > 0
    expect(page.locator("[data-section=entering]")).to_contain_text(f"({wide['entering']['count']:,})")


def test_the_base_model_and_a_checkpoint_answer_side_by_side_with_probabilities_on_demand(
    page: Page, platform: RunningPlatform, done: str
) -> None:
    page.goto(f"{platform.dashboard_url}/playground?run={done}&prompt=1%2B1%3D&max_tokens=4")
    page.get_by_role("button", name="Ask").click()

    strips = page.locator(".sampled .strip")
    expect(strips).to_have_count(2, timeout=90_000)
    expect(page.locator(".sampled .alternatives").first.locator("li")).not_to_have_count(0, timeout=90_000)
    expect(page.locator(".sampled .panel").first).to_contain_text("token 1 of")
    page.get_by_text("Probability of each token").click()
    expect(page.get_by_text("before the last change")).to_be_visible()
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".sampled .plain")).to_have_count(2, timeout=90_000)


@pytest.fixture(scope="module")
def endless(platform: RunningPlatform) -> str:
    """A model that never ends by itself and takes its time: sixteen layers, and an end that is never likely."""
    tiny = make_model().config.to_dict() | {"layer_types": None}
    size = {"hidden_size": 256, "num_hidden_layers": 16, "max_position_embeddings": 4096, "tie_word_embeddings": False}
    model = transformers.AutoModelForCausalLM.from_config(transformers.Qwen3Config(**tiny | size))
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1.0)  # every hidden state leans one way, and the end the other
        model.get_output_embeddings().weight[model.config.eos_token_id] = -1.0
    folder = platform.home / "models" / "endless"
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder.name


@pytest.fixture
def num_asks(platform: RunningPlatform) -> Iterator[Callable[[], int]]:
    """How many answers the platform has yet to give, by its own record."""
    database = Database(f"postgresql+psycopg://stapo@/stapo?host={platform.home / 'sockets' / 'postgres'}")

    def count() -> int:
        with database.transaction() as session:
            return session.scalar(select(func.count()).select_from(Completion)) or 0

    yield count
    database.close()


def shown(page: Page) -> list[str]:
    """The answers on the page, line breaks as their model drew them."""
    texts: list[str] = page.locator(".sampled .strip bdi:first-child").all_text_contents()
    return [text.replace("⏎\n", "\n") for text in texts]


def test_answers_grow_side_by_side_and_end_as_the_unstreamed_ones(
    page: Page, platform: RunningPlatform, client: Client, endless: str
) -> None:
    question = Question("1+1=", 1.0, 600, 2, 5, wants_probabilities=False)
    url = f"{platform.dashboard_url}/playground?models={endless}&models=gone"
    page.goto(f"{url}&prompt=1%2B1%3D&max_tokens=600&n=2&seed=5&probabilities=false")
    page.get_by_role("button", name="Ask").click()

    expect(page.get_by_text("The service refused").filter(has_text="'gone'")).to_be_visible(timeout=90_000)
    expect(page.locator(".sampled .strip").first).to_have_text(re.compile(r"\w+.*▍"), timeout=90_000)
    page.evaluate(STRIPS)
    growing = shown(page)
    deadline = time.monotonic() + 60.0
    while len(shown(page)[0]) == len(growing[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert page.evaluate("window.strips.map((strip) => strip.isConnected)") == [True, True], "drawn anew, not grown"
    expect(page.get_by_role("button", name="Stop")).to_be_disabled(timeout=90_000)
    whole = [choice["text"] for choice in client.complete(question.body(endless))["choices"]]

    assert shown(page) == whole
    assert len(growing) == 2
    for part, answer in zip(growing, whole, strict=True):
        assert answer.startswith(part)
        assert 0 < len(part) < len(answer)
    expect(page.get_by_text("cut at the limit")).to_have_count(2)


@pytest.mark.usefixtures("client")
def test_a_model_that_is_not_in_memory_is_said_to_be_loaded(page: Page, platform: RunningPlatform) -> None:
    shutil.copytree(platform.home / "models" / "tiny", platform.home / "models" / "cold")
    page.goto(f"{platform.dashboard_url}/playground?models=cold&prompt=1%2B1%3D&max_tokens=4")
    page.get_by_role("button", name="Ask").click()

    expect(page.get_by_text("the model is being loaded")).to_be_visible()
    expect(page.locator(".sampled .alternatives li").first).to_be_visible(timeout=90_000)
    expect(page.get_by_text("the model is being loaded")).to_have_count(0)


@pytest.mark.parametrize("leave", ["Stop", "System"])
def test_an_answer_that_is_stopped_or_left_is_drawn_no_further_and_shows_what_it_has(
    page: Page, platform: RunningPlatform, endless: str, num_asks: Callable[[], int], leave: str
) -> None:
    page.goto(f"{platform.dashboard_url}/playground?models={endless}&prompt=1%2B1%3D&max_tokens=4000&n=8")
    page.get_by_role("button", name="Ask").click()
    expect(page.locator(".sampled .strip").first).to_have_text(re.compile(r"\w+.*▍"), timeout=90_000)
    assert num_asks() == 1

    page.get_by_text(leave, exact=True).click()

    deadline = time.monotonic() + 40.0
    while num_asks() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert num_asks() == 0
    page.get_by_text("Playground", exact=True).first.click()
    expect(page.get_by_text("stopped before its end")).to_have_count(8, timeout=60_000)
    expect(page.locator(".sampled .token")).not_to_have_count(0)
    expect(page.locator(".sampled .alternatives").first.locator("li")).not_to_have_count(0)


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("", "[data-testid=stDataFrame]"),
        ("run?run={run}", f"{ENTROPY}[data-num-points='4']"),
        ("tokens?run={run}&step=4", ".strip .token"),
        ("quadrants?run={run}&step=2", "[data-testid=stECharts], canvas"),
        ("compare?runs={label}&runs={label}", "text=Compare"),
        ("new?preset=demo", "text=Dry run"),
        ("playground?run={run}", "text=done · step 4, final"),
        ("system", "text=Slots in use"),
    ],
)
def test_a_page_of_a_real_run_has_what_it_is_for_and_fits_half_a_laptops_screen(
    page: Page, platform: RunningPlatform, done: str, path: str, shown: str
) -> None:
    page.set_viewport_size({"width": 760, "height": 900})
    page.goto(f"{platform.dashboard_url}/{path.format(run=done, label=f'done · {done[-6:]}')}")

    expect(page.locator(shown).first).to_be_visible()
    expect(page.get_by_test_id("stException")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert page.get_by_test_id("stMain").evaluate("(main) => main.scrollWidth <= main.clientWidth")
