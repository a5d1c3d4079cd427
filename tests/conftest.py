"""What every test may lean on: a real Postgres, a real Valkey, empty databases, free ports, a state folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from client.running import RunningPlatform, start_platform
from client.servers import Server, start_postgres, start_valkey
from client.settings import read_settings


def make_home() -> Path:
    """A short state folder that `nobody` may pass through; pytest's own are closed to everybody else."""
    home = Path(tempfile.mkdtemp(prefix="stapo-test-"))
    home.chmod(0o711)
    return home


@pytest.fixture
def home() -> Iterator[Path]:
    """A state folder of the test's own."""
    folder = make_home()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def session_home() -> Iterator[Path]:
    """The state folder of the servers that the whole session shares."""
    folder = make_home()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(session_home: Path) -> Iterator[Server]:
    """A real Postgres 18."""
    server = start_postgres(session_home)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def valkey_server(session_home: Path) -> Iterator[Server]:
    """A real Valkey 9."""
    server = start_valkey(session_home)
    yield server
    server.stop()


@pytest.fixture
def empty_database(postgres_server: Server) -> str:
    """A database of the test's own without a schema (SQLAlchemy URL)."""
    return _create_database(postgres_server.url, template="template0")


@pytest.fixture(scope="session")
def valkey_url(valkey_server: Server) -> str:
    """A broker that the session shares (Celery URL, `redis+socket://…`)."""
    return valkey_server.url


@pytest.fixture(scope="session")
def migrated_database(postgres_server: Server, valkey_url: str, session_home: Path) -> str:
    """The URL of a database at the newest schema: the template of `fresh_database`; let nobody connect to it."""
    url = _create_database(postgres_server.url, template="template0")
    env = os.environ | {
        "STAPO_HOME": str(session_home),
        "STAPO_DATABASE_URL": url,
        "STAPO_BROKER_URL": valkey_url,
    }
    subprocess.run([sys.executable, "-m", "api.store.migrate"], env=env, check=True)
    return url


@pytest.fixture
def fresh_database(migrated_database: str) -> Iterator[str]:
    """A database of the test's own at the newest schema (SQLAlchemy URL)."""
    url = _create_database(migrated_database, template=_database_of(migrated_database))
    yield url
    with _connect_to_admin(url) as connection:
        connection.execute(f"DROP DATABASE {_database_of(url)} WITH (FORCE)".encode())


@pytest.fixture(scope="session")
def platform() -> Iterator[RunningPlatform]:
    """The whole platform as `stapo up` runs it, in a state folder and on ports of its own, shared by the session."""
    folder = make_home()
    quick_to_notice = {"STAPO_LEASE_S": "10", "STAPO_HEARTBEAT_S": "1", "STAPO_SWEEP_S": "1", "STAPO_BACKOFF_S": "0.5"}
    settings = read_settings(
        os.environ | {"STAPO_HOME": str(folder)} | quick_to_notice,
        api_port=find_free_port(),
        dashboard_port=find_free_port(),
    )
    running = start_platform(settings)
    yield running
    running.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def free_port() -> int:
    """A TCP port that nobody listened on a moment ago."""
    return find_free_port()


def find_free_port() -> int:
    """Asks the kernel for a TCP port on 127.0.0.1."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _create_database(url: str, *, template: str) -> str:
    name = f"test_{uuid.uuid4().hex}"
    with _connect_to_admin(url) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    return url.replace("@/" + _database_of(url), f"@/{name}", 1)


def _connect_to_admin(url: str) -> psycopg.Connection:
    plain = url.replace("postgresql+psycopg://", "postgresql://").replace("@/" + _database_of(url), "@/postgres", 1)
    return psycopg.connect(plain, autocommit=True)


def _database_of(url: str) -> str:
    return url.partition("@/")[2].partition("?")[0]
