"""The worker's health check follows the worker's own sign of life, in a real Postgres."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from sqlalchemy import text

from api.store import leases
from api.store.database import Database
from tests.deploy.documents import DEPLOY


def test_a_container_is_well_while_its_own_worker_beats(fresh_database: str) -> None:
    host = socket.gethostname()
    database = Database(fresh_database, pool_size=1)
    with database.transaction() as session:
        leases.beat(session, f"{host}-2:7", slots=1)
        leases.beat(session, "elsewhere:7", slots=1)
    other = check(fresh_database)
    assert other.returncode == 1
    assert f"the worker on {host} has been silent for 60 s" in other.stderr

    with database.transaction() as session:
        leases.beat(session, f"{host}:7", slots=1)
    assert check(fresh_database).returncode == 0

    with database.transaction() as session:
        session.execute(text("UPDATE worker_beats SET seen_at = seen_at - interval '61 seconds'"))
    database.close()
    assert check(fresh_database).returncode == 1


def test_it_says_so_when_the_database_is_away() -> None:
    result = check("postgresql+psycopg://stapo@127.0.0.1:1/stapo")
    assert result.returncode == 1
    assert result.stderr == "the database does not answer\n"


def check(database_url: str) -> subprocess.CompletedProcess[str]:
    """The check as the container runs it. The broker is one that nobody serves: the check must not need it."""
    env = os.environ | {
        "STAPO_HOME": "/nowhere",
        "STAPO_DATABASE_URL": database_url,
        "STAPO_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    command = [sys.executable, str(DEPLOY / "worker_health.py")]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)
