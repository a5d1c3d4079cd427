"""Secrets planted wherever the service is given one, a job and every kind of refusal, and then a search for them."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
import redis

from client.http import Client
from client.servers import Server, start_valkey
from tests.conftest import find_free_port, make_home
from tests.end_to_end.conftest import CONFIG
from tests.stapo_core.tiny import make_model, make_tokenizer

DEADLINE_S = 120.0
HASHES = {("api_keys", "key_sha256"), ("stream_tickets", "ticket_sha256")}


@dataclass
class Site:
    """An API and a worker of the test's own, with a secret in every place that holds one."""

    home: Path
    url: str
    database_url: str
    secrets: dict[str, str]
    answers: list[str] = field(default_factory=list)

    def ask(self, method: str, path: str, *, key: str | None = None, **request: Any) -> httpx2.Response:
        """Asks, and keeps all of the answer for the search."""
        headers = {"Authorization": f"Bearer {key or self.secrets['first key']}"} | request.pop("headers", {})
        answer = httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=60.0, **request)
        self.answers.append(f"{answer.headers}\n{answer.text}")
        return answer

    def job(self, job_id: str) -> Any:
        return self.ask("GET", f"/v1/fine_tuning/jobs/{job_id}").json()


@pytest.fixture
def broker(free_port: int) -> Iterator[tuple[str, str]]:
    """The address of a Valkey with a password, and the password."""
    home, password = make_home(), f"broker-{secrets.token_hex(12)}"
    server: Server = start_valkey(home)
    control = redis.Redis(unix_socket_path=server.url.removeprefix("redis+socket://"))
    control.config_set("port", free_port)
    control.config_set("requirepass", password)
    yield f"redis://:{password}@127.0.0.1:{free_port}/0", password
    control.close()
    server.stop()


@pytest.fixture
def site(home: Path, empty_database: str, broker: tuple[str, str]) -> Iterator[Site]:
    make_model(spread=1.0).save_pretrained(home / "models" / "tiny")
    make_tokenizer().save_pretrained(home / "models" / "tiny")
    password = f"database-{secrets.token_hex(12)}"  # over its own socket Postgres asks for none, and takes any
    planted = {name: f"operator-{secrets.token_hex(12)}" for name in ("AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY")}
    planted |= {name: f"operator-{secrets.token_hex(12)}" for name in ("HF_TOKEN", "STAPO_API_KEY", "PGPASSWORD")}
    env = os.environ | planted
    env |= {"STAPO_HOME": str(home), "STAPO_DATABASE_URL": empty_database.replace("@/", f":{password}@/", 1)}
    env |= {"STAPO_BROKER_URL": broker[0], "STAPO_POLL_S": "0.1", "STAPO_SWEEP_S": "0.5", "STAPO_BACKOFF_S": "0.1"}
    (home / "logs").mkdir()
    subprocess.run([sys.executable, "-m", "api.store.migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
    known = planted | {"database password": password, "broker password": broker[1]}
    known["first key"] = (home / "api_key").read_text().strip()
    port, broken = find_free_port(), find_free_port()
    away = {"STAPO_DATABASE_URL": f"postgresql+psycopg://u:{password}@127.0.0.1:1/d"}
    away |= {"STAPO_BROKER_URL": f"redis://:{broker[1]}@127.0.0.1:1/0"}
    running = [
        start(home, "worker", env, "celery", "-A", "worker.celery_app", "worker", "--pool", "threads", "-c", "1"),
        start(home, "api", env, *api(port)),
        start(home, "api-without-stores", env | away, *api(broken)),
    ]
    site = Site(home, f"http://127.0.0.1:{port}", empty_database, known)
    until(lambda: is_up(f"{site.url}/readyz") and is_up(f"http://127.0.0.1:{broken}/healthz"), "the site")
    for path in ("/readyz", "/v1/files"):
        answer = httpx2.get(f"http://127.0.0.1:{broken}{path}", headers={"Authorization": "Bearer x"}, timeout=60.0)
        assert answer.status_code == 503
        site.answers.append(answer.text)
    yield site
    for process in running:
        process.terminate()
    for process in running:
        process.wait()


def api(port: int) -> list[str]:
    return ["uvicorn", "api.main:create_app", "--factory", "--port", str(port), "--log-level", "debug"]


def start(home: Path, name: str, env: Mapping[str, str], *module: str) -> subprocess.Popen[bytes]:
    with (home / "logs" / f"{name}.log").open("wb") as log:
        return subprocess.Popen([sys.executable, "-m", *module], env=dict(env), stdout=log, stderr=log)


def is_up(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=30.0).is_success
    except httpx2.TransportError:
        return False


def until(is_so: Any, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, f"{what} is not there after {DEADLINE_S} s"
        time.sleep(0.1)


def test_no_secret_is_in_logs_answers_child_processes_files_or_rows(site: Site, tmp_path: Path) -> None:
    environments = run_jobs(site, tmp_path)
    refuse(site)
    assert len(environments) >= 2  # the trainer's and the model's that answers
    found = search(site, environments)
    assert found == {}
    plant(site, "first key", "broker password")
    again = search(site, [*environments, f"X={site.secrets['HF_TOKEN']}"])
    assert again == {  # so the search sees what there is to see
        "first key": ["the column job_events.message"],
        "broker password": [f"the file {site.home / 'runs' / 'leak.log'}"],
        "HF_TOKEN": ["the environment of a child"],
    }


def run_jobs(site: Site, tmp_path: Path) -> list[str]:
    """A job that succeeds with answers from its model, one that fails, and one that is cancelled."""
    made = site.ask("POST", "/v1/api_keys", json={"name": "ci"}, headers={"Idempotency-Key": "once"})
    site.answers.clear()  # the one answer that is to hold a key
    site.secrets["second key"] = made.json()["key"]
    rows = b"".join(b'{"prompt": "%d+1=", "answer": "%d"}\n' % (n, n + 1) for n in range(9))
    form: dict[str, Any] = {"files": {"file": ("t.jsonl", rows)}, "data": {"purpose": "fine-tune"}}
    file_id = site.ask("POST", "/v1/files", **form).json()["id"]
    grader = {"type": "numeric", "reference": "{{item.answer}}"}

    def submit(num_steps: int, **config: Any) -> str:
        method = {"grader": grader, "config": CONFIG | {"num_steps": num_steps, "record_rollouts_every": 1} | config}
        body = {"model": "tiny", "training_file": file_id, "method": {"type": "reinforcement", "reinforcement": method}}
        answer = site.ask("POST", "/v1/fine_tuning/jobs", json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    endless = submit(100_000)
    until(lambda: site.job(endless)["step"] >= 1, "a step")
    environments = environments_of_children(site.home)
    path = f"/v1/fine_tuning/jobs/{endless}"
    ticket = site.ask("POST", f"{path}/stream_ticket").json()["ticket"]
    site.answers.pop()  # the other answer that is to hold a secret
    site.secrets["ticket"] = ticket
    site.ask("GET", f"{path}/metrics?ticket={ticket}", key="none")
    site.ask("POST", f"{path}/cancel")
    failing = submit(3, sampling={"max_prompt_tokens": 2, "max_response_tokens": 8})  # no prompt is so short
    done = submit(2)
    until(lambda: site.job(done)["state"] == "succeeded", "the end of a job")
    assert [site.job(each)["state"] for each in (endless, failing)] == ["cancelled", "failed"]
    for each in (endless, failing, done):
        for what in ("", "/events", "/metrics", "/logs", "/manifest", "/checkpoints", "/rollouts"):
            site.ask("GET", f"/v1/fine_tuning/jobs/{each}{what}")
    asked = {"model": site.job(done)["fine_tuned_model"], "prompt": "1+1=", "max_tokens": 4}
    assert site.ask("POST", "/v1/completions", json=asked).status_code == 200
    environments += environments_of_children(site.home)
    with Client(site.url, site.secrets["second key"]) as client:
        newest = client.list_checkpoints(done)["data"][0]["id"]
        client.download_checkpoint(newest, tmp_path / "checkpoint")
    return environments


def environments_of_children(home: Path) -> list[str]:
    """The environment and the command line of every process below the worker."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdigit() else b""
            is_child = b"stapo_core" in command and str(home).encode() in command
            if is_child:
                found.append(((folder / "environ").read_bytes() + command).decode(errors="replace"))
        except OSError:
            continue  # it ended meanwhile
    return found


def refuse(site: Site) -> None:
    """Every way to be refused, with secrets where one may put them by mistake."""
    first, second = site.secrets["first key"], site.secrets["second key"]
    mistyped = second[:20] + ("a" if second[20] != "a" else "b") + second[21:]
    for key in (mistyped, "x", f"{second}\u00e9".encode().hex()):
        assert site.ask("GET", "/v1/files", key=key).status_code == 401
    site.ask("POST", "/v1/api_keys", json={"name": "ci"}, headers={"Idempotency-Key": "once"})
    site.ask("GET", "/v1/fine_tuning/jobs/ftjob-0/metrics", key="none", params={"ticket": "wrong"})
    site.ask("POST", "/v1/fine_tuning/jobs", json={"model": 1, "unknown": True})
    site.ask("POST", "/v1/fine_tuning/jobs", content=b"{", headers={"Content-Type": "application/json"})
    site.ask("PUT", "/v1/files")
    for path in ("/v1/api_keys", "/v1/usage", "/v1/queue", "/v1/workers", "/metrics", "/openapi.json", "/readyz"):
        assert site.ask("GET", path).status_code == 200
    assert first != second


def search(site: Site, environments: list[str]) -> dict[str, list[str]]:
    """Where each secret stands: the whole of it, or what is random in it."""
    places = {"the answers": "\n".join(site.answers), "the environment of a child": "\n".join(environments)}
    files = (path for path in site.home.rglob("*") if path.is_file() and path != site.home / "api_key")
    places |= {f"the file {path}": path.read_bytes().decode("latin-1") for path in files}
    places |= {f"the column {table}.{column}": text for table, column, text in columns(site.database_url)}
    found: dict[str, list[str]] = {}
    for name, secret in site.secrets.items():
        core = secret[len("stapo_") + 6 :] if secret.startswith("stapo_") else secret  # a key's beginning is shown
        hits = [place for place, text in places.items() if core in text]
        if hits:
            found[name] = hits
    return found


def columns(database_url: str) -> Iterator[tuple[str, str, str]]:
    """Every text and JSON column of every table, all its rows as one text; hashes left out by name."""
    with psycopg.connect(database_url.replace("+psycopg", "", 1)) as connection:
        named = connection.execute(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND data_type IN ('text', 'character varying', 'json', 'jsonb', 'ARRAY', 'bytea')"
        ).fetchall()
        assert len(named) > 40
        assert set(named) >= HASHES
        for table, column in sorted(set(named) - HASHES):
            query = f'SELECT coalesce(string_agg("{column}"::text, chr(10)), \'\') FROM "{table}"'  # noqa: S608
            row = connection.execute(query.encode()).fetchone()
            assert row is not None
            yield table, column, row[0]


def plant(site: Site, in_a_row: str, in_a_file: str) -> None:
    (site.home / "runs" / "leak.log").write_text(f"connecting with {site.secrets[in_a_file]}\n")
    with psycopg.connect(site.database_url.replace("+psycopg", "", 1)) as connection:
        connection.execute("UPDATE job_events SET message = %s", (f"key {site.secrets[in_a_row]}",))
