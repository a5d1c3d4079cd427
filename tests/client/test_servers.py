"""The embedded Postgres and Valkey start, answer, keep what they were told, and survive being killed."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from client import servers
from client.process import StartError
from client.servers import Server, start_postgres, start_valkey
from tests.client.processes import hanging_program

Start = Callable[[Callable[[Path], Server], Path], Server]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server and stops it after the test, whatever the test did to it."""
    servers: list[Server] = []

    def start_server(starter: Callable[[Path], Server], home: Path) -> Server:
        servers.append(starter(home))
        return servers[-1]

    yield start_server
    for server in servers:
        server.stop()


def query(server: Server, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def ask(server: Server, line: str) -> str:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        connection.connect(server.url.removeprefix("redis+socket://"))
        connection.sendall(line.encode() + b"\r\n")
        return connection.recv(4096).decode()


def kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()


def test_postgres_is_version_18_and_sorts_by_code_point(start: Start, home: Path) -> None:
    server = start(start_postgres, home)
    assert query(server, "select current_setting('server_version_num')::int / 10000") == [(18,)]
    assert query(server, "select 'Z' < 'a', upper('é')") == [(True, "É")]


def test_postgres_listens_on_no_network_port(start: Start, home: Path) -> None:
    server = start(start_postgres, home)
    assert query(server, "show listen_addresses") == [("",)]


def test_rows_outlive_a_stop_and_a_kill(start: Start, home: Path) -> None:
    first = start(start_postgres, home)
    query(first, "create table kept (n int)")
    query(first, "insert into kept values (1)")
    first.stop()
    second = start(start_postgres, home)
    query(second, "insert into kept values (2)")
    kill(second)
    third = start(start_postgres, home)
    assert query(third, "select sum(n) from kept") == [(3,)]


def test_a_half_made_cluster_is_made_again(start: Start, home: Path) -> None:
    (home / "postgres" / "data.new").mkdir(parents=True)
    (home / "postgres" / "data.new" / "PG_VERSION").write_text("18\n")
    server = start(start_postgres, home)
    assert query(server, "select 1") == [(1,)]


def test_a_cluster_of_another_version_is_refused_and_left_alone(home: Path) -> None:
    (home / "postgres" / "data").mkdir(parents=True)
    (home / "postgres" / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(StartError, match="belongs to Postgres 16"):
        start_postgres(home)
    assert [path.name for path in (home / "postgres" / "data").iterdir()] == ["PG_VERSION"]


def test_a_second_server_on_the_same_folder_is_refused(
    start: Start, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = start(start_postgres, home)
    monkeypatch.setattr("client.servers._PREVIOUS_S", 0.1)
    with pytest.raises(StartError, match=f"process {first.process.pid}"):
        start_postgres(home)


def test_a_server_that_cannot_start_shows_the_end_of_its_log(start: Start, home: Path) -> None:
    start(start_postgres, home).stop()
    (home / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(StartError, match="no_such_setting"):
        start_postgres(home)


def test_only_our_own_user_may_connect_to_postgres(start: Start, home: Path) -> None:
    server = start(start_postgres, home)
    rules = query(server, "select type, database, user_name, auth_method from pg_hba_file_rules")
    assert rules == [("local", ["all"], ["stapo"], "peer")]
    folder = Path(server.url.partition("host=")[2])
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_valkey_is_version_9_and_never_forgets_silently(start: Start, home: Path) -> None:
    server = start(start_valkey, home)
    assert "valkey_version:9." in ask(server, "INFO server")
    assert "noeviction" in ask(server, "CONFIG GET maxmemory-policy")
    assert "tcp_port:0" in ask(server, "INFO server")


def test_valkey_keeps_its_keys_over_a_stop(start: Start, home: Path) -> None:
    first = start(start_valkey, home)
    assert ask(first, "SET kept 1") == "+OK\r\n"
    first.stop()
    second = start(start_valkey, home)
    assert ask(second, "GET kept") == "$1\r\n1\r\n"


def test_valkey_starts_again_beside_the_socket_of_a_killed_one(start: Start, home: Path) -> None:
    kill(start(start_valkey, home))
    second = start(start_valkey, home)
    assert ask(second, "PING") == "+PONG\r\n"


def test_two_state_folders_run_side_by_side(start: Start, home: Path, session_home: Path) -> None:
    one, other = start(start_postgres, home), start(start_postgres, home / "other")
    query(one, "create table only_here (n int)")
    assert query(other, "select to_regclass('only_here')") == [(None,)]
    start(start_valkey, home)
    assert ask(start(start_valkey, home / "other"), "PING") == "+PONG\r\n"


def test_a_question_that_hangs_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "_QUERY_S", 0.2)
    hanging_program(tmp_path / "psql")
    assert servers._psql(tmp_path, tmp_path, "select 1") is None


def test_a_deep_folder_with_a_space_gets_its_sockets_elsewhere(start: Start, home: Path) -> None:
    deep = home / "with a space" / ("d" * 90)
    server = start(start_postgres, deep)
    folder = Path(server.url.partition("host=")[2])
    assert query(server, "select 1") == [(1,)]
    assert str(home) not in str(folder)
    assert folder.parent.stat().st_uid == os.geteuid()
    assert not folder.parent.stat().st_mode & 0o022
    server.stop()
    shutil.rmtree(folder.parent)


@pytest.mark.parametrize("starter", [start_postgres, start_valkey])
def test_servers_die_with_the_process_that_started_them(starter: Callable[[Path], Server], home: Path) -> None:
    code = f"import sys, time; from pathlib import Path; from client.servers import {starter.__name__} as start\n"
    code += "print(start(Path(sys.argv[1])).process.pid, flush=True); time.sleep(60)"
    parent = subprocess.Popen([sys.executable, "-c", code, str(home)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists()
