"""Which service the command line speaks to, and with which key."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from client.errors import ClientError
from client.http import Client
from client.launch import record_path
from client.settings import DEFAULT_API_PORT
from client.state import default_home


class NoKey(ClientError):
    """There is no key to speak with."""


def connect(env: Mapping[str, str]) -> Client:
    """A client for STAPO_API_URL with STAPO_API_KEY, else for this machine's platform with its first key."""
    home = default_home(env)
    return Client(find_api_url(env, home), find_api_key(env, home))


def find_api_url(env: Mapping[str, str], home: Path) -> str:
    """STAPO_API_URL, else the address that the platform in `home` wrote down, else the default port."""
    if chosen := env.get("STAPO_API_URL"):
        return chosen
    record = read_record(home)
    return record["api_url"] if record else f"http://127.0.0.1:{env.get('STAPO_API_PORT') or DEFAULT_API_PORT}"


def find_api_key(env: Mapping[str, str], home: Path) -> str:
    """STAPO_API_KEY, else the content of STAPO_API_KEY_FILE, else the first key in `home`. Raises NoKey."""
    if chosen := env.get("STAPO_API_KEY"):
        return chosen
    path = Path(env.get("STAPO_API_KEY_FILE") or home / "api_key")
    try:
        return path.read_text().strip()
    except OSError as error:
        raise NoKey(
            f"No API key: {path} cannot be read ({error.strerror}). Set STAPO_API_KEY, or start a platform here "
            "with `stapo up`, which makes the first key."
        ) from error


def read_record(home: Path) -> dict[str, str] | None:
    """The addresses of the platform that runs in `home`; None when none wrote any."""
    try:
        record = json.loads(record_path(home).read_text())
    except (OSError, ValueError):
        return None
    return {name: str(value) for name, value in record.items()}
