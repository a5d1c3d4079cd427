"""The browser that the tests drive: found on this machine, or installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from client.errors import ClientError

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PLAYWRIGHT_PROGRAMS = ("chromium-*/chrome-linux*/chrome", "chromium_headless_shell-*/chrome*/*headless*shell")


class NoBrowser(ClientError):
    """No Chromium, and none could be installed."""


def find_browser() -> Path | None:
    """The first Chromium on PATH or in playwright's cache."""
    for name in _NAMES:
        if found := shutil.which(name):
            return Path(found)
    for pattern in _PLAYWRIGHT_PROGRAMS:
        for found_path in sorted(_playwright_cache().glob(pattern), reverse=True):
            if os.access(found_path, os.X_OK):
                return found_path
    return None


def install_browser() -> Path:
    """Installs Debian's package as root, playwright's own build otherwise. Raises NoBrowser."""
    if os.geteuid() == 0 and shutil.which("apt-get"):
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        _run(["apt-get", "update", "-q"], env)
        _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", "chromium"], env)
    else:
        _run([sys.executable, "-m", "playwright", "install", "chromium"], dict(os.environ))
    browser = find_browser()
    if browser is None:
        raise NoBrowser("The installation of Chromium ended well, and there is still none on PATH.")
    return browser


def _run(command: list[str], env: dict[str, str]) -> None:
    result = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)  # noqa: S603
    if result.returncode != 0:
        said = "\n".join((result.stdout + result.stderr).splitlines()[-15:])
        raise NoBrowser(
            f"`{' '.join(command)}` failed:\n{said}\n"
            "Install Chromium yourself (Debian: `apt-get install chromium` as root) and start again."
        )


def _playwright_cache() -> Path:
    chosen = os.environ.get("PLAYWRIGHT_BROWSERS_PATH")
    return Path(chosen) if chosen else Path.home() / ".cache" / "ms-playwright"
