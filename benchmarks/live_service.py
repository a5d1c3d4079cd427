"""The API as it runs in earnest: Postgres, Valkey and uvicorn, each a process of its own, and what they cost.

Knows how to start, fill and watch them; it makes no load.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import text

from api.settings import Settings
from api.store import keys
from api.store.database import Database
from client.servers import Server, start_postgres, start_valkey

TENANT = "bench"
METRIC_KEYS = (
    *("reward/mean", "policy/entropy", "policy/loss", "policy/grad_norm", "mask/ppm", "response/length_mean"),
    *(f"area{number}/figure" for number in range(34)),
)
"""Forty, as many as a step of the trainer has."""


@dataclass(frozen=True)
class LiveService:
    """A running API, and the means to look behind it."""

    settings: Settings
    database: Database
    env: dict[str, str]
    key: str
    port: int
    api: subprocess.Popen[bytes]
    postgres: Server

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def cpu_s(self) -> dict[str, float]:
        """CPU-seconds so far of the API and of Postgres."""
        return {"API": cpu_s([self.api.pid]), "Postgres": cpu_s(family(self.postgres.process.pid))}

    def rss_mb(self) -> float:
        """Resident memory of the API now."""
        return rss_mb(self.api.pid)


@contextmanager
def live_service(**options: str) -> Iterator[LiveService]:
    """Starts everything in a folder of its own and leaves nothing behind; `options` are settings (`STAPO_*`)."""
    home = Path(tempfile.mkdtemp(prefix="stapo-bench-"))
    home.chmod(0o711)
    postgres, valkey = start_postgres(home), start_valkey(home)
    env = os.environ | {
        "STAPO_HOME": str(home),
        "STAPO_DATABASE_URL": postgres.url,
        "STAPO_BROKER_URL": valkey.url,
        **{f"STAPO_{name.upper()}": value for name, value in options.items()},
    }
    (home / "models" / "tiny").mkdir(parents=True)
    (home / "models" / "tiny" / "config.json").write_text("{}")
    subprocess.run([sys.executable, "-m", "api.store.migrate"], env=env, check=True, stdout=subprocess.DEVNULL)
    settings = Settings(home=home, database_url=postgres.url, broker_url=valkey.url)
    database = Database(settings.database_url)
    with database.transaction() as session:
        key = keys.create_key(session, tenant=TENANT, name="bench")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = [sys.executable, "-m", "uvicorn", "api.main:create_app", "--factory", "--host", "127.0.0.1"]
    quiet = ["--port", str(port), "--log-level", "warning", "--timeout-graceful-shutdown", "2"]
    api = subprocess.Popen([*command, *quiet], env=env)
    try:
        _wait_until_up(api, port)
        yield LiveService(settings, database, env, key, port, api, postgres)
    finally:
        api.terminate()
        api.wait()
        database.close()
        valkey.stop()
        postgres.stop()
        shutil.rmtree(home, ignore_errors=True)


def fill_metrics(database: Database, job_id: str, num_steps: int) -> None:
    """Gives a job steps of forty figures each, with a spike in one step, and folds them as its worker would have."""
    figures = ", ".join(f"'{key}', round((random() + {place})::numeric, 6)" for place, key in enumerate(METRIC_KEYS))
    rows = (
        "INSERT INTO step_metrics (job_id, kind, step, seq, fence, created_at, values) "
        f"SELECT :job, 'train', step, step + 1000, 1, now(), jsonb_build_object({figures}) "
        "FROM generate_series(1, :num_steps) AS step"
    )
    spike = (
        "UPDATE step_metrics SET values = jsonb_set(values, '{policy/grad_norm}', '1000') "
        "WHERE job_id = :job AND kind = 'train' AND step = :step"
    )
    job = "UPDATE jobs SET step = :num_steps, num_steps = :most, last_seq = :num_steps + 1000 WHERE id = :job"
    from api.store.curves import fold_steps

    with database.transaction() as session:
        session.execute(text(rows), {"job": job_id, "num_steps": num_steps})
        session.execute(text(spike), {"job": job_id, "step": spike_step(num_steps)})
        session.execute(text(job), {"job": job_id, "num_steps": num_steps, "most": 10 * num_steps})
        fold_steps(session, job_id, "train", below_step=num_steps)
    with database.connection() as connection:
        connection.execute(text("ANALYZE"))


def spike_step(num_steps: int) -> int:
    """Where `fill_metrics` puts the spike."""
    return num_steps // 3 + 1


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = [int(child) for task in Path(f"/proc/{pid}/task").iterdir() for child in _children(task)]
    return [pid, *children]


def cpu_s(pids: list[int]) -> float:
    """CPU-seconds that the processes have used, those of their own ended children included."""
    total = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        total += sum(map(int, fields[11:15] if pid == pids[0] else fields[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def load_average() -> str:
    """What else the machine does, as the kernel says it: over one, five and fifteen minutes."""
    return " ".join(f"{value:.1f}" for value in os.getloadavg())


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except FileNotFoundError:
        return []


def _wait_until_up(api: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline and api.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError("the API did not start")
