"""The platform as the harness runs it: real servers, the real API, real workers, each to be killed and started again.

Postgres and Valkey come from `client.servers`; workers reach both through proxies. Everything is started from the
main thread, and goes with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from api.store import leases
from api.store.database import Database, Outage
from api.store.tables import Job
from client.http import Client
from client.process import Command, never, run_to_end, spawn
from client.servers import Server, start_postgres, start_valkey
from client.state import prepare_home
from stapo_core.failpoints import PASSED, VARIABLE
from tests.chaos import audit
from tests.chaos.nursery import Newborn, Nursery
from tests.chaos.proxy import Proxy
from tests.conftest import find_free_port

ROOT = Path(__file__).parents[2]
NUM_ROWS = 8
GRADER = {
    "type": "string_check",
    "name": "answer",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "like",
}
MAKE_MODEL = """\
import sys
from tests.stapo_core.tiny import make_model, make_tokenizer
make_model(spread=1.0).save_pretrained(sys.argv[1])
make_tokenizer().save_pretrained(sys.argv[1])
"""
QUICK: dict[str, str] = {  # as in production, twenty times faster
    "LEASE_S": "3",
    "HEARTBEAT_S": "0.5",
    "POLL_S": "0.1",
    "SWEEP_S": "0.25",
    "CANCEL_GRACE_S": "2",
    "DRAIN_S": "5",
    "BACKOFF_S": "0.05",
    "STALL_S": "3.5",
    "MAX_ATTEMPTS": "50",
}


@dataclass
class Process:
    """One process of the platform: `start` makes it anew when it has died, unless it is held down."""

    name: str
    start: Callable[[], subprocess.Popen[bytes] | Newborn]
    popen: subprocess.Popen[bytes] | Newborn | None = None
    is_held_down: bool = False

    @property
    def pid(self) -> int | None:
        """Its process id while it lives."""
        return self.popen.pid if self.popen is not None and self.popen.poll() is None else None


@dataclass(frozen=True)
class Shape:
    """How large a site is, and what is different from production."""

    num_workers: int = 3
    slots: int = 3
    settings: Mapping[str, str] | None = None
    trainer: str = "chain"
    without: str = ""


class Site:
    """A running platform."""

    def __init__(self, home: Path, shape: Shape) -> None:
        self.home, self.shape = home, shape
        self.without = shape.without
        self.failpoints = home / "failpoints"
        self.quick = dict(QUICK if shape.settings is None else shape.settings)
        self.api_port = find_free_port()
        self.processes: dict[str, Process] = {}
        self.proxies: dict[str, Proxy] = {}

    def start(self) -> None:
        """Starts all of it; returns when the API answers and every worker has given a sign of life."""
        prepare_home(self.home, None)
        self.home.chmod(0o711)
        (self.failpoints / PASSED).mkdir(parents=True)
        self.postgres, self.valkey = start_postgres(self.home), start_valkey(self.home)
        self.processes["postgres"] = Process("postgres", self._restart_postgres, self.postgres.process)
        self.processes["valkey"] = Process("valkey", self._restart_valkey, self.valkey.process)
        self.database = Database(self.postgres.url)
        log = self.home / "logs" / "migrate.log"
        python = (sys.executable, "-m", "api.store.migrate")
        if run_to_end(Command(python, self._env(self.postgres.url, self.valkey.url), log), is_stopping=never) != 0:
            raise RuntimeError(log.read_text())
        audit.install(self.database)
        self._add_inputs()
        sockets = {name: _socket_of(server) for name, server in (("postgres", self.postgres), ("valkey", self.valkey))}
        self.proxies = {f"worker-{n}": Proxy(sockets["postgres"]) for n in range(self.shape.num_workers)}
        self.proxies["valkey"] = Proxy(sockets["valkey"])
        self._add("api", self._start_api)
        self.nursery = Nursery(ROOT, self._env("", ""), self.home / "logs" / "nursery.log")
        for number in range(self.shape.num_workers):
            self._add(f"worker-{number}", lambda name=f"worker-{number}": self._start_worker(name))  # type: ignore[misc]
        self.client = Client(f"http://127.0.0.1:{self.api_port}", (self.home / "api_key").read_text().strip())
        self._wait_until_ready()
        with training_file() as path:
            self.file_id = self.client.upload_file(path)["id"]

    def stop(self) -> None:
        """Ends all of it, without ceremony."""
        for process in reversed(self.processes.values()):
            if process.pid is not None:
                for pid in [process.pid, *descendants(process.pid)]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGCONT)
        for name, process in reversed(self.processes.items()):
            if process.pid is not None and name not in ("postgres", "valkey"):
                os.killpg(process.pid, signal.SIGKILL)
                process.popen.wait()  # type: ignore[union-attr]
        self.nursery.close()
        for proxy in self.proxies.values():
            proxy.close()
        self.client.close()
        self.database.close()
        self.valkey.stop()
        self.postgres.stop()

    def revive(self) -> None:
        """Starts what has died and is not held down."""
        for process in self.processes.values():
            if process.pid is None and not process.is_held_down:
                process.popen = process.start()

    def change_workers(self, *, without: str) -> None:
        """Other workers in place of these, with every guard but the one that is named."""
        self.without = without
        for process in self.workers():
            if process.pid is not None:
                os.killpg(process.pid, signal.SIGKILL)
                process.popen.wait()  # type: ignore[union-attr]
        self._wait_until_ready()

    # --- jobs

    def create_job(self, *, num_steps: int, checkpoint_every: int = 3, seed: int = 7, **train: Any) -> str:
        """Submits a job through the API; returns its id."""
        config = {
            "num_steps": num_steps,
            "batch": {"num_prompts": 2, "group_size": 2},
            "checkpoint": {"every_steps": checkpoint_every, "keep": 2},
            "record_rollouts_every": 0,
        }
        body = {
            "model": "tiny",
            "training_file": self.file_id,
            "seed": seed,
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    "grader": GRADER,
                    "config": config | train,
                },
            },
        }
        return str(self.client.create_job(body)["id"])

    def jobs(self) -> dict[str, Job]:
        """Every job's row, straight from the database; waits for one that is away."""
        deadline = time.monotonic() + 60.0
        while True:
            try:
                with self.database.transaction() as session:
                    return {job.id: job for job in session.query(Job)}
            except Outage:
                if time.monotonic() > deadline:
                    raise
                self.revive()
                time.sleep(0.05)

    def trainer_of(self, job_id: str) -> int | None:
        """The process id of the job's living trainer."""
        with contextlib.suppress(OSError, ValueError):
            pid = int((self.home / "runs" / job_id / "lock").read_text())
            if str(self.home / "runs" / job_id).encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        return None

    # --- parts

    def _add(self, name: str, start: Callable[[], subprocess.Popen[bytes] | Newborn]) -> None:
        self.processes[name] = Process(name, start, start())

    def _add_inputs(self) -> None:
        model = self.home / "models" / "tiny"
        model.parent.mkdir(exist_ok=True)
        if self.shape.trainer == "chain":
            model.mkdir()
            (model / "config.json").write_text("{}")
        else:
            subprocess.run([sys.executable, "-c", MAKE_MODEL, str(model)], cwd=ROOT, check=True, capture_output=True)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + 90.0
        while time.monotonic() < deadline:
            self.revive()
            with contextlib.suppress(Exception), self.database.transaction() as session:
                names = [leases.is_worker_alive(session, silent_s=60.0, prefix=name) for name in self.worker_names()]
                if all(names) and self.client.ready().get("status") == "ok":
                    return
            time.sleep(0.1)
        raise RuntimeError(f"the platform did not start; its logs are in {self.home / 'logs'}")

    def worker_names(self) -> list[str]:
        """The names under which the living workers claim."""
        return [f"{os.uname().nodename}:{process.pid}" for process in self.workers() if process.pid is not None]

    def workers(self) -> list[Process]:
        """The worker processes."""
        return [process for name, process in self.processes.items() if name.startswith("worker-")]

    def _env(self, database_url: str, broker_url: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("STAPO_")}
        ours = {f"STAPO_{name}": value for name, value in self.quick.items()}
        return (
            inherited
            | ours
            | {
                "STAPO_HOME": str(self.home),
                "STAPO_DATABASE_URL": database_url,
                "STAPO_BROKER_URL": broker_url,
                "STAPO_WORKER_SLOTS": str(self.shape.slots),
                "STAPO_RATE_LIMIT": "",
                "PYTHONPATH": str(ROOT),
                "OMP_NUM_THREADS": "1",
                VARIABLE: str(self.failpoints),
                "CHAOS_TRAINER": self.shape.trainer,
                "CHAOS_WITHOUT": self.without,
            }
        )

    def _start_api(self) -> subprocess.Popen[bytes]:
        arguments = ("-m", "uvicorn", "api.main:create_app", "--factory", "--log-level", "warning")
        port = ("--host", "127.0.0.1", "--port", str(self.api_port), "--timeout-graceful-shutdown", "2")
        env = self._env(self.postgres.url, f"redis://127.0.0.1:{self.proxies['valkey'].port}/0")
        return spawn(Command((sys.executable, *arguments, *port), env, self.home / "logs" / "api.log"))

    def _start_worker(self, name: str) -> Newborn:
        database = (
            f"postgresql+psycopg://stapo@127.0.0.1:{self.proxies[name].port}/stapo?sslmode=disable&gssencmode=disable"
        )
        env = self._env(database, f"redis://127.0.0.1:{self.proxies['valkey'].port}/0")
        pool = ("--pool", "threads", "--concurrency", str(self.shape.slots), "-n", f"{name}@%h")
        lean = ("--loglevel", "WARNING", "--without-gossip", "--without-mingle")
        arguments = ("-A", "tests.chaos.worker", "worker", *pool, *lean)
        return self.nursery.bear(arguments, env, self.home / "logs" / f"{name}.log")

    def _restart_postgres(self) -> subprocess.Popen[bytes]:
        self.postgres = start_postgres(self.home)
        return self.postgres.process

    def _restart_valkey(self) -> subprocess.Popen[bytes]:
        self.valkey = start_valkey(self.home)
        return self.valkey.process


@contextlib.contextmanager
def running_site(shape: Shape | None = None) -> Iterator[Site]:
    """A site in a folder of its own, gone when the block ends; the folder stays when it ends badly."""
    with tempfile.TemporaryDirectory(prefix="stapo-chaos-", ignore_cleanup_errors=True) as folder:
        site = Site(Path(folder), shape or Shape())
        try:
            site.start()
            yield site
        finally:
            site.stop()


@contextlib.contextmanager
def training_file() -> Iterator[Path]:
    """Eight sums."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sums.jsonl"
        rows = [{"prompt": f"{n}+1=", "answer": str(n + 1)} for n in range(NUM_ROWS)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        yield path


def descendants(pid: int) -> list[int]:
    """The processes below one, by the kernel's own list."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def _socket_of(server: Server) -> Path:
    parts = urlsplit(server.url)
    if server.name == "valkey":
        return Path(parts.path)
    return Path(parse_qs(parts.query)["host"][0]) / ".s.PGSQL.5432"
