"""The scripts that containers run say what a real Postgres says: is the schema there, is the worker alive."""

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
    other = worker_health(fresh_database)
    assert other.returncode == 1
    assert f"the worker on {host} has been silent for 60 s" in other.stderr

    with database.transaction() as session:
        leases.beat(session, f"{host}:7", slots=1)
    assert worker_health(fresh_database).returncode == 0

    with database.transaction() as session:
        session.execute(text("UPDATE worker_beats SET seen_at = seen_at - interval '61 seconds'"))
    database.close()
    assert worker_health(fresh_database).returncode == 1


def test_it_says_so_when_the_database_is_away() -> None:
    result = worker_health("postgresql+psycopg://stapo@127.0.0.1:1/stapo")
    assert result.returncode == 1
    assert result.stderr == "the database does not answer\n"


def test_a_pod_waits_until_the_schema_is_that_of_its_version(fresh_database: str, empty_database: str) -> None:
    assert run("schema_ready.py", fresh_database).returncode == 0

    empty = run("schema_ready.py", empty_database)
    assert empty.returncode == 1
    assert empty.stderr.startswith("the schema is at nothing, this version needs ")

    database = Database(fresh_database, pool_size=1)
    with database.transaction() as session:
        session.execute(text("UPDATE alembic_version SET version_num = 'another'"))
    database.close()
    other = run("schema_ready.py", fresh_database)
    assert other.returncode == 1
    assert other.stderr.startswith("the schema is at another, this version needs ")


def worker_health(database_url: str) -> subprocess.CompletedProcess[str]:
    return run("worker_health.py", database_url)


def run(script: str, database_url: str) -> subprocess.CompletedProcess[str]:
    """The script as the container runs it. The broker is one that nobody serves: no script may need it."""
    env = os.environ | {
        "STAPO_HOME": "/nowhere",
        "STAPO_DATABASE_URL": database_url,
        "STAPO_BROKER_URL": "redis://127.0.0.1:1/0",
    }
    return subprocess.run([sys.executable, DEPLOY / script], env=env, capture_output=True, text=True, check=False)
