"""The Python processes of the platform: how each is started and told where the others are. Knows no order."""

from __future__ import annotations

import importlib.util
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.process import Command, StartError
from client.settings import LaunchSettings


@dataclass(frozen=True)
class Service:
    """One process to keep alive. It gets SIGTERM first, and `grace_s` seconds before it is killed."""

    name: str
    command: Command
    grace_s: float


def migration(settings: LaunchSettings, urls: Mapping[str, str]) -> Command:
    """Brings the schema up to date and makes the first API key; ends by itself."""
    return _python(settings, "migrate", _backend_env(settings, urls), "-m", "api.store.migrate")


def api(settings: LaunchSettings, urls: Mapping[str, str]) -> Service:
    """The REST API."""
    origins = [f"http://{host}:{settings.dashboard_port}" for host in ("127.0.0.1", "localhost")]
    env = _backend_env(settings, urls) | {
        "STAPO_CORS_ORIGINS": settings.env.get("STAPO_CORS_ORIGINS") or ",".join(origins)
    }
    address = ("--host", "127.0.0.1", "--port", str(settings.api_port))
    quiet = ("--timeout-graceful-shutdown", "2", "--log-level", "warning")
    command = _python(settings, "api", env, "-m", "uvicorn", "api.main:create_app", "--factory", *address, *quiet)
    return Service("API", command, grace_s=4.0)


def worker(settings: LaunchSettings, urls: Mapping[str, str]) -> Service:
    """The Celery worker; it stops its trainers within `drain_s` seconds."""
    env = _backend_env(settings, urls) | {"STAPO_DRAIN_S": str(settings.drain_s)}
    lean = ("--pool", "threads", "--loglevel", "WARNING", "--without-gossip", "--without-mingle")
    command = _python(settings, "worker", env, "-m", "celery", "-A", "worker.celery_app", "worker", *lean)
    return Service("worker", command, grace_s=settings.drain_s + 1.5)


def dashboard(settings: LaunchSettings) -> Service:
    """The Streamlit dashboard: a guest, so it learns the API's address and where the key lies, and no more."""
    spec = importlib.util.find_spec("dashboard")
    if spec is None or spec.origin is None:
        raise StartError("The dashboard is not installed. Install it with: pip install 'stapo[all]'")
    folder = Path(spec.origin).parent
    hidden = {"STAPO_DATABASE_URL", "STAPO_BROKER_URL", "STAPO_API_KEY"}
    env = {name: value for name, value in settings.env.items() if name not in hidden} | {
        "STAPO_HOME": str(settings.home),
        "STAPO_API_URL": settings.api_url,
        "STAPO_API_KEY_FILE": str(settings.key_path),
    }
    server = ("--server.address", "127.0.0.1", "--server.port", str(settings.dashboard_port))
    quiet = ("--server.headless", "true", "--server.fileWatcherType", "none", "--browser.gatherUsageStats", "false")
    script = str(folder / "streamlit_app.py")
    # Streamlit reads .streamlit/config.toml in its working directory.
    command = _python(settings, "dashboard", env, "-m", "streamlit", "run", script, *server, *quiet, folder=folder)
    return Service("dashboard", command, grace_s=2.0)


def _backend_env(settings: LaunchSettings, urls: Mapping[str, str]) -> dict[str, str]:
    return dict(settings.env) | {"STAPO_HOME": str(settings.home)} | dict(urls)


def _python(
    settings: LaunchSettings, name: str, env: Mapping[str, str], *arguments: str, folder: Path | None = None
) -> Command:
    """A Python of ours that does not look for modules in its working directory, and dies at once with us."""
    return Command(
        arguments=(sys.executable, "-P", *arguments),
        env=dict(env) | {"PYTHONUNBUFFERED": "1"},
        log=settings.home / "logs" / f"{name}.log",
        folder=folder or settings.home,
        death_signal=signal.SIGKILL,
    )
