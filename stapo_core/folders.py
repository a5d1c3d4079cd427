"""Folders that are whole or absent: written aside, digested, fsynced, renamed; and the newest that verifies.

Knows bytes and the run's spool. What lies in a folder is the caller's: it fills a draft and reads what was verified.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from stapo_core.config import CheckpointConfig
from stapo_core.events import CheckpointFile, CheckpointRejected, CheckpointSaved
from stapo_core.failpoints import failpoint
from stapo_core.spool import Spool

FORMAT = 1
MANIFEST = "manifest.json"
PIECE = 2**26
Content = TypeVar("Content")


class Manifest(BaseModel):
    """What a checkpoint's folder must hold, byte for byte; the manifest itself is not listed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    step: int
    files: list[CheckpointFile]
    best: bool = False
    """Nothing better had been evaluated when this was written; of several such checkpoints the newest is the best."""


class Rejected(Exception):
    """A folder is not a whole checkpoint; the message says why."""


class Folders:
    """The checkpoint folders of one run directory."""

    def __init__(self, run_dir: Path, config: CheckpointConfig, *, spool: Spool) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "checkpoints"
        self._config = config
        self._spool = spool
        self._saved_at = time.monotonic()
        self.saved_step = 0
        """The newest step that is safe on disk; 0 is the base model, which needs no checkpoint."""

    def find(self, read: Callable[[Path], Content]) -> Content | None:
        """The newest checkpoint that `read` does not reject; each newer one is reported with its reason."""
        for stale in self._folder.glob(".tmp-*"):
            shutil.rmtree(stale)
        for folder in sorted(self._folder.glob("step-*"), key=_order, reverse=True):
            try:
                return read(folder)
            except Rejected as rejection:
                name = str(folder.relative_to(self._run_dir))
                self._spool.emit(CheckpointRejected, folder=name, reason=str(rejection))
        return None

    def is_due(self, step: int) -> bool:
        """Whether `every_steps` or `every_s` is reached."""
        waited = time.monotonic() - self._saved_at
        return step % self._config.every_steps == 0 or waited >= self._config.every_s

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoint is marked, and spared however old it is."""
        return self._config.keep_best

    def put(self, step: int, fill: Callable[[Path], None], *, final: bool = False, is_best: bool = False) -> None:
        """Writes the checkpoint of `step`, whole or not at all; the oldest beyond `keep` go, but never the best."""
        self._spool.sync()
        manifest = write_folder(self._folder / folder_name(step), step, fill, is_best=is_best)
        self.saved_step, self._saved_at = step, time.monotonic()
        failpoint("checkpoint_renamed")
        self.announce(manifest, final=final)
        self._prune(step)

    def mark_best(self, step: int, *, final: bool) -> None:
        """Marks the checkpoint of `step`, saved before its evaluation was over, as the best so far; once."""
        folder = self._folder / folder_name(step)
        manifest = read_manifest(folder)
        if not manifest.best:
            manifest = manifest.model_copy(update={"best": True})
            _write_manifest(folder, manifest)
            sync(folder)
            self.announce(manifest, final=final)

    def _prune(self, step: int) -> None:
        """Folders above `step` did not verify when the run resumed; they are replaced when their step is reached."""
        here = _order(self._folder / folder_name(step))
        folders = sorted((each for each in self._folder.glob("step-*") if _order(each) <= here), key=_order)
        marked = [folder for folder in folders if _is_marked(folder)]
        for folder in set(folders[: -self._config.keep]) - set(marked[-1:]):
            failpoint("pruning")
            shutil.rmtree(folder)

    def announce(self, manifest: Manifest, *, final: bool) -> None:
        """Says that a checkpoint is whole; a resumed run says it again, for a crash may have come before the word."""
        self._spool.emit(
            CheckpointSaved,
            step=manifest.step,
            folder=f"checkpoints/{folder_name(manifest.step)}",
            files=manifest.files,
            final=final,
            best=manifest.best,
        )


def write_folder(folder: Path, step: int, fill: Callable[[Path], None], *, is_best: bool = False) -> Manifest:
    """Has `fill` write beside `folder`, and renames the draft there once all of it is on the disk.

    Raises OSError when the disk is full or fails; nothing is left behind then.
    """
    make_durably(folder.parent)
    draft = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
    try:
        draft.mkdir()
        fill(draft)
        files = [describe(path, draft) for path in sorted(draft.rglob("*")) if path.is_file()]
        manifest = Manifest(format=FORMAT, step=step, files=files, best=is_best)
        _write_manifest(draft, manifest)
        failpoint("checkpoint_drafted")
        sync_all([*draft.rglob("*"), draft])
        failpoint("checkpoint_synced")
        if folder.exists():  # one that did not verify
            shutil.rmtree(folder)
        draft.rename(folder)
        sync(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return manifest


def verify(folder: Path) -> Manifest:
    """Checks every file's size and digest against the manifest. Raises Rejected with the first difference."""
    manifest = read_manifest(folder)
    if manifest.format != FORMAT:
        raise Rejected(f"its format is {manifest.format} and this trainer reads {FORMAT}")
    for listed in manifest.files:
        path = folder / listed.path
        if not path.is_file():
            raise Rejected(f"{listed.path} is missing")
        if path.stat().st_size != listed.bytes:
            raise Rejected(f"{listed.path} has {path.stat().st_size} bytes and should have {listed.bytes}")
        try:
            is_same = _sha256(path) == listed.sha256
        except OSError as error:
            raise Rejected(f"{listed.path} cannot be read: {error}") from error
        if not is_same:
            raise Rejected(f"the bytes of {listed.path} are not those that were written (sha256 differs)")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Raises Rejected when there is none or it cannot be read."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise Rejected("it has no manifest, so it was not finished") from None
    except (ValidationError, OSError) as error:
        raise Rejected(f"its manifest cannot be read: {error}") from error


def folder_name(step: int) -> str:
    """The name of a step's folder."""
    return f"step-{step:06d}"


def _order(folder: Path) -> tuple[int, str]:
    """Sorts folders as their steps: names of one length do so by themselves, and step 1,000,000 has a longer one."""
    return len(folder.name), folder.name


def sync_all(paths: Iterable[Path]) -> None:
    """Has each file and folder on the disk before it returns."""
    for path in paths:
        sync(path)


def sync(path: Path) -> None:
    """Has a file's bytes, or a folder's names, on the disk before it returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durably(folder: Path) -> None:
    """Makes a folder, and its parents: one whose name is not on the disk is lost with all that is fsynced in it."""
    if not folder.exists():
        make_durably(folder.parent)
        folder.mkdir(exist_ok=True)
        sync(folder.parent)


def link_or_copy(source: Path, target: Path, *, keep_alive: Callable[[], object]) -> None:
    """Puts a file at a second place: linked where the file system can, else copied and on the disk, piece by piece.

    `keep_alive` is called after each piece. Raises OSError.
    """
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        with source.open("rb") as reader, target.open("xb") as writer:
            while piece := reader.read(PIECE):
                writer.write(piece)
                writer.flush()
                os.fsync(writer.fileno())
                keep_alive()
        shutil.copymode(source, target)
    else:
        keep_alive()


def describe(path: Path, root: Path) -> CheckpointFile:
    """The entry of a file in a manifest."""
    return CheckpointFile(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=_sha256(path))


def _is_marked(folder: Path) -> bool:
    try:
        return read_manifest(folder).best
    except Rejected:
        return False


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """In place of the one that is there, by a rename."""
    draft = folder / f".{MANIFEST}"
    draft.write_text(manifest.model_dump_json(indent=1))
    sync(draft)
    draft.rename(folder / MANIFEST)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
