"""The state folder: where it lies, what is in it, who may enter it, and where its sockets go."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from client.process import Account, StartError

_MAX_SOCKET_PATH = 100  # the kernel's limit is 107 bytes
_LONGEST_SOCKET = ".s.PGSQL.5432.lock"
_PLAIN = re.compile(r"[A-Za-z0-9/._-]+")  # such a path stands in a URL as it is


def default_home(env: Mapping[str, str]) -> Path:
    """`STAPO_HOME`, else `/var/lib/stapo` for root, else `stapo` in the user's data folder (XDG)."""
    if chosen := env.get("STAPO_HOME"):
        return Path(chosen).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/stapo")
    data = env.get("XDG_DATA_HOME", "")
    return (Path(data) if data.startswith("/") else Path.home() / ".local" / "share") / "stapo"


def prepare_home(home: Path, account: Account | None) -> None:
    """Makes the state folder; under root, `account` may pass through it. Nothing outside it is touched.

    Raises StartError where the folder cannot be made or the account cannot reach it.
    """
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / "logs").mkdir(mode=0o700, exist_ok=True)
        if account is not None:
            home.chmod(stat.S_IMODE(home.stat().st_mode) | 0o111)
    except OSError as error:
        raise StartError(
            f"The state folder {home} cannot be used ({error.strerror}). Name another with STAPO_HOME."
        ) from error
    if account is not None:
        for folder in home.resolve().parents:
            if not folder.stat().st_mode & stat.S_IXOTH:
                raise StartError(
                    f"Under root the servers run as `nobody`, who cannot pass through {folder} to reach the state "
                    f"folder {home}. Name another with STAPO_HOME, for example /var/lib/stapo."
                )


def private_folder(path: Path, account: Account | None) -> Path:
    """Makes a folder that only `account` (or we ourselves) can open."""
    path.mkdir(mode=0o700, exist_ok=True)
    if account is not None and path.stat().st_uid != account.uid:
        os.chown(path, account.uid, account.gid)
    path.chmod(0o700)
    return path


def socket_folder(home: Path, name: str, account: Account | None) -> Path:
    """Where the server `name` puts its socket: inside the state folder, unless that path is too long for a socket."""
    inside = home / "sockets"
    longest = inside / name / _LONGEST_SOCKET
    if len(os.fsencode(longest)) <= _MAX_SOCKET_PATH and _PLAIN.fullmatch(str(longest)):
        outer = inside
    else:
        digest = hashlib.sha256(os.fsencode(home.resolve())).hexdigest()[:12]
        outer = _runtime_folder() / f"stapo-{os.geteuid()}-{digest}"
    outer.mkdir(mode=0o700, exist_ok=True)
    _check_ours(outer)
    outer.chmod(0o711 if account is not None else 0o700)
    return private_folder(outer / name, account)


def _runtime_folder() -> Path:
    """A short folder for sockets: /run for root, the session's own for a user, else /tmp (checked by `_check_ours`)."""
    if os.geteuid() == 0:
        return Path("/run") if os.access("/run", os.W_OK) else Path("/tmp")  # noqa: S108
    runtime = Path(os.environ.get("XDG_RUNTIME_DIR") or "/nonexistent")
    if runtime.is_dir() and runtime.stat().st_uid == os.geteuid() and len(os.fsencode(runtime)) <= 40:
        return runtime
    return Path("/tmp")  # noqa: S108


def _check_ours(folder: Path) -> None:
    """Refuses a folder, or a link in its place, that somebody else put where ours belongs."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise StartError(f"{folder} should be our private folder for sockets and is not. Remove it and start again.")
