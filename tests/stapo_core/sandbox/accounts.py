"""Starts a Python module as root or as an ordinary user, with nothing but the standard library and what is copied."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
_PACKAGES = ("stapo_core/__init__.py", "stapo_core/sandbox", "tests/__init__.py", "tests/stapo_core/__init__.py")
_IS_NEW_ENOUGH = "import ctypes, sys; sys.exit(sys.version_info < (3, 11))"


def users() -> tuple[str, ...]:
    """As whom this machine lets us try; root can be both."""
    return ("root", "ordinary") if os.geteuid() == 0 else ("ordinary",)


def start(module: str, user: str, folder: Path) -> subprocess.Popen[bytes]:
    """Runs `python -m module user` with a SECRET in its environment; `folder` is one that everybody may enter."""
    source = folder / f"source-{user}"
    for name in (*_PACKAGES, "tests/stapo_core/sandbox"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, source / name)
    python, libraries = Path(sys.executable), ""
    if account := _account(user):
        python, libraries = _reachable_python(folder, account)
    secret = os.urandom(16).hex()
    return subprocess.Popen(
        [str(python), "-B", "-m", module, user],
        env={"PYTHONPATH": str(source), "SECRET": secret, "LD_LIBRARY_PATH": libraries},
        cwd="/",
        stdout=subprocess.PIPE,
        **account,
    )


def _account(user: str) -> dict[str, Any]:
    if user == "root" or os.geteuid() != 0:
        return {}
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []}


def _reachable_python(folder: Path, account: dict[str, Any]) -> tuple[Path, str]:
    """An interpreter that the account may start, and where its library lies; root's own may be below a closed home."""
    for found in (sys.executable, shutil.which("python3", path="/usr/local/bin:/usr/bin")):
        if found and _works(found, account, ""):
            return Path(found), ""
    prefix = Path(sys.base_prefix)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    copy = folder / "python"
    (copy / "bin").mkdir(parents=True)
    shutil.copy(prefix / "bin" / name, copy / "bin" / name)
    ignored = shutil.ignore_patterns("site-packages", "test", "idlelib", "ensurepip", "config-*", "__pycache__")
    shutil.copytree(prefix / "lib" / name, copy / "lib" / name, ignore=ignored)
    for library in (prefix / "lib").glob("libpython*.so*"):
        shutil.copy(library, copy / "lib")
    assert _works(str(copy / "bin" / name), account, str(copy / "lib"))
    return copy / "bin" / name, str(copy / "lib")


def _works(python: str, account: dict[str, Any], libraries: str) -> bool:
    command = [python, "-I", "-S", "-c", _IS_NEW_ENOUGH]
    try:
        return subprocess.run(command, env={"LD_LIBRARY_PATH": libraries}, cwd="/", **account).returncode == 0
    except OSError:
        return False
