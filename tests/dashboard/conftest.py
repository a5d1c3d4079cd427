"""A real API on a real database, a real dashboard, a real browser; runs that go exactly as far as a test says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psycopg
import pytest
import streamlit as st
from playwright.sync_api import Browser, Page, expect, sync_playwright

from api.store.database import Database
from client.chromium import find_browser
from client.http import Client
from tests.conftest import find_free_port, make_home
from tests.dashboard.runs import Feed

DASHBOARD = Path(__file__).parents[2] / "dashboard" / "streamlit_app.py"
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@dataclass
class Service:
    """A running API with its database and state folder."""

    url: str
    api_key: str
    home: Path
    database: Database
    environment: dict[str, str]
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Starts the API, or starts it again at the same address."""
        port = self.url.rpartition(":")[2]
        command = [sys.executable, "-m", "uvicorn", "api.main:create_app", "--factory", "--port", port]
        command += ["--host", "127.0.0.1", "--timeout-graceful-shutdown", "1", "--log-level", "warning"]
        self.process = subprocess.Popen(command, env=os.environ | self.environment)
        _wait_for(f"{self.url}/healthz", self.process)

    def kill(self) -> None:
        """Takes the API away without a word to anybody."""
        self.process.kill()
        self.process.wait()

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Takes the API away for the length of a block."""
        self.kill()
        try:
            yield
        finally:
            self.start()


@pytest.fixture(scope="session")
def service(migrated_database: str, valkey_url: str, session_home: Path) -> Iterator[Service]:
    """The API, on a database that the tests of this folder share."""
    home = make_home()
    for name in ("tiny", "other"):
        (home / "models" / name).mkdir(parents=True)
        (home / "models" / name / "config.json").write_text("{}")
    url = _copy_database(migrated_database)
    environment = {
        "STAPO_HOME": str(home),
        "STAPO_DATABASE_URL": url,
        "STAPO_BROKER_URL": valkey_url,
        "STAPO_CORS_ORIGINS": "*",
        "STAPO_STREAM_POLL_S": "0.1",
    }
    key = (session_home / "api_key").read_text().strip()
    api = Service(f"http://127.0.0.1:{find_free_port()}", key, home, Database(url), environment)
    api.start()
    yield api
    api.kill()
    api.database.close()
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def feed(service: Service) -> Iterator[Feed]:
    """Makes runs that go as far as a test says; takes queued ones away at the end."""
    with Client(service.url, service.api_key) as client:
        maker = Feed(client, service.database, service.home)
        yield maker
        maker.close()


@pytest.fixture
def pages(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pages that run inside the test speak to the API."""
    monkeypatch.setenv("STAPO_API_URL", service.url)
    monkeypatch.setenv("STAPO_API_KEY", service.api_key)
    from dashboard import service as own

    own.disconnect()
    st.cache_data.clear()


@pytest.fixture(scope="session")
def dashboard_url(service: Service, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard as the launcher starts it, from a folder that is not its own; it knows the key by its file."""
    port = find_free_port()
    folder = tmp_path_factory.mktemp("elsewhere")
    key_file = folder / "key"
    key_file.write_text(service.api_key + "\n")
    environment = os.environ | {"STAPO_API_URL": service.url, "STAPO_API_KEY_FILE": str(key_file)}
    command = [sys.executable, "-m", "streamlit", "run", str(DASHBOARD)]
    command += ["--server.port", str(port), "--server.address", "127.0.0.1"]
    process = subprocess.Popen(command, env=environment, cwd=folder, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    _wait_for(f"{url}/_stcore/health", process)
    yield url
    process.kill()
    process.wait()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium: the machine's own where it has one."""
    own = find_browser()
    expect.set_options(timeout=20_000)  # a deadline for a loaded machine; what is there is seen at once
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(own) if own else None, args=BROWSER_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh page on a laptop's screen. An error of its scripts fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, errors


def _copy_database(template: str) -> str:
    name, source = f"dashboard_{uuid.uuid4().hex}", template.partition("@/")[2].partition("?")[0]
    admin = template.replace("postgresql+psycopg://", "postgresql://").replace(f"/{source}", "/postgres", 1)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {source}".encode())
    return template.replace(f"/{source}", f"/{name}", 1)


def _wait_for(url: str, process: subprocess.Popen[bytes], *, limit_s: float = 30.0) -> None:
    ends = time.monotonic() + limit_s
    while time.monotonic() < ends:
        assert process.poll() is None, f"The process for {url} has left with {process.returncode}."
        try:
            if httpx2.get(url, timeout=2).status_code == 200:
                return
        except httpx2.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"Nothing answered at {url} within {limit_s:.0f} s.")
