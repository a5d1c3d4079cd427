"""A folder of files from a service: resumed by Range, checked by sha256, whole or not there.

Knows bytes and digests; how a file is fetched is the caller's.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path, PurePosixPath
from typing import Any

import httpx2

from client.errors import ApiUnreachable, DownloadError

OnProgress = Callable[[int, int], None]
"""Called with the bytes that are here and the bytes of the whole."""
Fetch = Callable[[str, int], AbstractContextManager[httpx2.Response]]
"""Opens a file, named by its path in the checkpoint, from a byte on."""

_MAX_FRUITLESS = 5  # connections in a row that broke before a single byte came
_REPR_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):")  # RFC 9530


def download_folder(
    files: Sequence[Mapping[str, Any]], folder: Path, fetch: Fetch, on_progress: OnProgress | None
) -> Path:
    """Fetches `files` (path, bytes, sha256) beside `folder` and renames them into place once all are right.

    What a broken download left is kept and continued. Raises DownloadError.
    """
    if folder.exists():
        if all(_is_right(folder / _safe(file["path"]), file) for file in files):
            return folder
        raise DownloadError(f"{folder} exists and is not this checkpoint. Remove it or name another folder.")
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    total, done = sum(int(file["bytes"]) for file in files), 0
    for file in files:
        before = done

        def report(size: int, before: int = before) -> None:
            if on_progress is not None:
                on_progress(before + size, total)

        target = partial / _safe(file["path"])
        if not _is_right(target, file):
            _fetch_file(file, target, fetch, report)
        done += int(file["bytes"])
        report(int(file["bytes"]))
    _drop_strangers(partial, {partial / _safe(file["path"]) for file in files})
    partial.rename(folder)
    return folder


def _fetch_file(file: Mapping[str, Any], target: Path, fetch: Fetch, report: Callable[[int], None]) -> None:
    """Fetches one file; when continued bytes turn out wrong it starts over once, since they may be another file's."""
    target.parent.mkdir(parents=True, exist_ok=True)
    was_continued = target.exists() and target.stat().st_size > 0
    _fetch_bytes(file, target, fetch, report)
    if not _is_right(target, file) and was_continued:
        target.unlink()
        _fetch_bytes(file, target, fetch, report)
    if not _is_right(target, file):
        target.unlink()
        raise DownloadError(
            f"{file['path']} does not have the sha256 that the service gave for it ({file['sha256']}); "
            "it was damaged on its way or at rest. Nothing was kept of it; try again."
        )


def _fetch_bytes(file: Mapping[str, Any], target: Path, fetch: Fetch, report: Callable[[int], None]) -> None:
    size, fruitless = int(file["bytes"]), 0
    if target.exists() and target.stat().st_size >= size:
        target.unlink()
    while True:
        start = target.stat().st_size if target.exists() else 0
        try:
            with fetch(str(file["path"]), start) as response:
                _check_digest(response, file)
                with target.open("ab" if response.status_code == 206 else "wb") as out:
                    for block in response.iter_bytes():
                        out.write(block)
                        report(out.tell())
                    out.flush()
                    os.fsync(out.fileno())
        except httpx2.TransportError as error:
            arrived = target.stat().st_size if target.exists() else 0
            fruitless = 0 if arrived > start else fruitless + 1
            if fruitless >= _MAX_FRUITLESS:
                raise ApiUnreachable(str(file["path"]), str(error) or type(error).__name__) from error
            time.sleep(0.2 * 2**fruitless)
        else:
            return


def _check_digest(response: httpx2.Response, file: Mapping[str, Any]) -> None:
    """Refuses, before a byte is written, a file whose announced digest is not the checkpoint's."""
    if found := _REPR_DIGEST.search(response.headers.get("repr-digest", "")):
        announced = base64.b64decode(found.group(1)).hex()
        if announced != file["sha256"]:
            raise DownloadError(
                f"The service announces {file['path']} with sha256 {announced}, the checkpoint says {file['sha256']}."
            )


def _is_right(path: Path, file: Mapping[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != file["bytes"]:
        return False
    with path.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest() == str(file["sha256"])


def _safe(path: str) -> Path:
    """A path that stays inside the folder, whatever the service says."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise DownloadError(f"The service names a file outside the checkpoint's folder: {path!r}.")
    return Path(*parts)


def _drop_strangers(folder: Path, wanted: set[Path]) -> None:
    """Removes what an earlier, other download left in the folder."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            if any(file.is_relative_to(path) for file in wanted):
                _drop_strangers(path, wanted)
            else:
                shutil.rmtree(path)
        elif path not in wanted:
            path.unlink()
