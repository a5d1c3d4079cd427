"""Which processes belong to a state folder: named in their environment, their command line or their place."""

from __future__ import annotations

import os
import time
from pathlib import Path


def processes_of(home: Path) -> dict[int, str]:
    """Living processes of the platform in `home`, by pid, with their command line. Needs root, or to be their user."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid() and _mentions(folder, str(home)):
            found[int(folder.name)] = _read(folder / "cmdline").replace("\0", " ")[:150]
    return found


def wait_until_gone(home: Path, *, within_s: float) -> dict[int, str]:
    """What is left after `within_s` seconds; empty as soon as nothing is."""
    deadline = time.monotonic() + within_s
    while (left := processes_of(home)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def hanging_program(path: Path) -> Path:
    """Makes a program that says nothing for a minute."""
    path.write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    path.chmod(0o755)
    return path


def _mentions(folder: Path, home: str) -> bool:
    if _read(folder / "stat").rpartition(")")[2].split()[:1] == ["Z"]:
        return False
    if f"STAPO_HOME={home}\0" in _read(folder / "environ") or f"{home}/" in _read(folder / "cmdline"):
        return True
    places = [_link(folder / "cwd"), _link(folder / "exe")]
    return any(place == home or place.startswith(f"{home}/") for place in places)


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""
