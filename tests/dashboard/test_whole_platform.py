"""The run page beside a real job: Postgres, Valkey, API, Celery worker and a trainer, as `stapo up` starts them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from client.http import Client
from client.running import RunningPlatform
from tests.dashboard.test_live_chart import BOARD, ENTROPY, MASK, drag, open_run, zoom_of
from tests.stapo_core.tiny import make_model, make_tokenizer

SETTINGS = {
    "algorithm": {"kind": "stapo", "tau_p": 0.02},
    "num_steps": 2000,
    "batch": {"num_prompts": 2, "group_size": 4},
    "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 12},
    "record_rollouts_every": 0,
}


@pytest.fixture
def client(platform: RunningPlatform) -> Iterator[Client]:
    """A client of the whole platform, which has a tiny base model."""
    folder = platform.home / "models" / "tiny"
    make_model(spread=1.0).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    with Client(platform.api_url, platform.api_key) as client:
        yield client


@pytest.fixture
def job_id(client: Client, platform: RunningPlatform) -> Iterator[str]:
    """A job that would train for minutes; cancelled at the end."""
    rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(9)]
    problems = platform.home / "sums.jsonl"
    problems.write_text("".join(json.dumps(row) + "\n" for row in rows))
    grader = {"type": "string_check", "reference": "{{item.answer}}", "operation": "like"}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "config": SETTINGS}}
    body = {"model": "tiny", "training_file": client.upload_file(problems)["id"], "suffix": "live", "method": method}
    job_id = str(client.create_job(body)["id"])
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
    expect(page.get_by_role("button", name="Resume")).to_be_visible(timeout=40_000)
    assert client.get_job(job_id)["state"] == "paused"
    rested = count(page, ENTROPY)

    page.get_by_role("button", name="Resume").click()
    expect_more(page, ENTROPY, rested + 1)
    assert zoom_of(page) == zoom

    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Cancel the run").click()
    expect(page.locator(BOARD)).to_have_attribute("data-stream", "ended", timeout=40_000)
    expect(page.get_by_test_id("stMarkdown").filter(has_text="Cancelled").first).to_be_visible(timeout=15_000)
    assert client.get_job(job_id)["state"] == "cancelled"
    assert page.evaluate("window.mark") == "the same document"
