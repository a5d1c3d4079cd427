"""What the user sets for the one-machine platform, read from `STAPO_*` variables and the command line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.process import StartError
from client.state import default_home

DEFAULT_API_PORT = 8000
DEFAULT_DASHBOARD_PORT = 8501
MAX_PORT = 2**16 - 1
DEFAULT_DRAIN_S = 4.0  # a laptop's Ctrl-C should not take a minute; a server's operator sets STAPO_DRAIN_S


@dataclass(frozen=True)
class LaunchSettings:
    """One platform on one machine. A URL that is set names a server of the user's own; ours is not started then."""

    home: Path
    api_port: int
    dashboard_port: int
    database_url: str | None
    broker_url: str | None
    drain_s: float
    env: Mapping[str, str]

    @property
    def api_url(self) -> str:
        """Where the API answers."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def dashboard_url(self) -> str:
        """Where the dashboard answers."""
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def key_path(self) -> Path:
        """Where the first API key lies."""
        return self.home / "api_key"


def read_settings(
    env: Mapping[str, str], *, api_port: int | None = None, dashboard_port: int | None = None
) -> LaunchSettings:
    """Reads the environment; what the command line names goes before it. Raises StartError for a bad value."""
    return LaunchSettings(
        home=default_home(env),
        api_port=api_port or _port(env, "STAPO_API_PORT", DEFAULT_API_PORT),
        dashboard_port=dashboard_port or _port(env, "STAPO_DASHBOARD_PORT", DEFAULT_DASHBOARD_PORT),
        database_url=env.get("STAPO_DATABASE_URL") or None,
        broker_url=env.get("STAPO_BROKER_URL") or None,
        drain_s=_seconds(env, "STAPO_DRAIN_S", DEFAULT_DRAIN_S),
        env=env,
    )


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdecimal() or not 1 <= int(text) <= MAX_PORT:
        raise StartError(f"{name} is {text!r}; it must be a whole number from 1 to {MAX_PORT}.")
    return int(text)


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise StartError(f"{name} is {text!r}; it must be a positive number of seconds.")
    return value
