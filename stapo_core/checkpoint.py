"""Checkpoints that are whole or absent: written aside, digested, fsynced, renamed; and the newest that verifies.

Knows folders and bytes, safetensors and JSON, never pickle. It does not know what the numbers mean: the learner
gives and takes its own state.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stapo_core.config import CheckpointConfig
from stapo_core.distributed import Ranks
from stapo_core.events import CheckpointFile, CheckpointRejected, CheckpointSaved
from stapo_core.policy import Policy
from stapo_core.spool import Spool

FORMAT = 1
MANIFEST = "manifest.json"


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


@dataclass(frozen=True, slots=True)
class TrainerState:
    """What must come back beside the weights for a run to go on exactly: tensors and plain JSON values."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Saved:
    """A verified checkpoint on disk."""

    folder: Path
    manifest: Manifest
    state: TrainerState

    @property
    def step(self) -> int:
        """The step that its weights stand at."""
        return self.manifest.step


class Checkpoints:
    """The checkpoints of one run directory."""

    def __init__(self, run_dir: Path, config: CheckpointConfig, *, spool: Spool) -> None:
        self._run_dir = run_dir
        self._folder = run_dir / "checkpoints"
        self._config = config
        self._spool = spool
        self._saved_at = time.monotonic()
        self.saved_step = 0
        """The newest step that is safe on disk; 0 is the base model, which needs no checkpoint."""

    def newest(self) -> Saved | None:
        """The newest checkpoint that verifies; each newer one that does not is reported with its reason."""
        for stale in self._folder.glob(".tmp-*"):
            shutil.rmtree(stale)
        for folder in sorted(self._folder.glob("step-*"), reverse=True):
            try:
                saved = read(folder)
            except Rejected as rejection:
                name = str(folder.relative_to(self._run_dir))
                self._spool.emit(CheckpointRejected, folder=name, reason=str(rejection))
            else:
                self.saved_step = saved.step
                return saved
        return None

    def is_due(self, step: int) -> bool:
        """Whether `every_steps` or `every_s` is reached."""
        waited = time.monotonic() - self._saved_at
        return step % self._config.every_steps == 0 or waited >= self._config.every_s

    @property
    def keeps_best(self) -> bool:
        """Whether the best checkpoint is marked, and spared however old it is."""
        return self._config.keep_best

    def save(
        self, step: int, policy: Policy, state: TrainerState, *, final: bool = False, is_best: bool = False
    ) -> None:
        """Writes the checkpoint of `step`, whole or not at all; the oldest beyond `keep` go, but never the best."""
        self._spool.sync()
        manifest = write(self._folder / _name(step), step, policy, state, is_best=is_best)
        self.saved_step, self._saved_at = step, time.monotonic()
        self.announce(manifest, final=final)
        self._prune(step)

    def mark_best(self, step: int, *, final: bool) -> None:
        """Marks the checkpoint of `step`, saved before its evaluation was over, as the best so far; once."""
        folder = self._folder / _name(step)
        manifest = _read_manifest(folder)
        if not manifest.best:
            manifest = manifest.model_copy(update={"best": True})
            _write_manifest(folder, manifest)
            _fsync(folder)
            self.announce(manifest, final=final)

    def _prune(self, step: int) -> None:
        """Folders above `step` did not verify when the run resumed; they are replaced when their step is reached."""
        folders = [folder for folder in sorted(self._folder.glob("step-*")) if folder.name <= _name(step)]
        marked = [folder for folder in folders if _is_marked(folder)]
        for folder in set(folders[: -self._config.keep]) - set(marked[-1:]):
            shutil.rmtree(folder)

    def announce(self, manifest: Manifest, *, final: bool) -> None:
        """Says that a checkpoint is whole; a resumed run says it again, for a crash may have come before the word."""
        self._spool.emit(
            CheckpointSaved,
            step=manifest.step,
            folder=f"checkpoints/{_name(manifest.step)}",
            files=manifest.files,
            final=final,
            best=manifest.best,
        )


class Onlooker(Checkpoints):
    """The checkpoints as a rank above 0 sees them: it reads what rank 0 found and writes none."""

    def save(
        self, step: int, policy: Policy, state: TrainerState, *, final: bool = False, is_best: bool = False
    ) -> None:
        """Rank 0 writes it."""
        self.saved_step = step

    def mark_best(self, step: int, *, final: bool) -> None:
        """Rank 0 marks it."""


def find_newest(checkpoints: Checkpoints, ranks: Ranks) -> Saved | None:
    """The checkpoint that rank 0 finds to be the newest whole one, read by every rank."""
    folder = ranks.from_first(lambda: _folder(checkpoints.newest()))
    if folder is None:
        return None
    saved = read(folder)
    checkpoints.saved_step = saved.step
    return saved


def _folder(saved: Saved | None) -> Path | None:
    return None if saved is None else saved.folder


def write(folder: Path, step: int, policy: Policy, state: TrainerState, *, is_best: bool = False) -> Manifest:
    """Writes a checkpoint beside `folder` and renames it there once all of it is on the disk.

    Raises OSError when the disk is full or fails; nothing is left behind then.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
    try:
        draft.mkdir()
        policy.save(draft)
        _write_state(draft / "trainer", state)
        files = [_describe(path, draft) for path in sorted(draft.rglob("*")) if path.is_file()]
        manifest = Manifest(format=FORMAT, step=step, files=files, best=is_best)
        _write_manifest(draft, manifest)
        for path in [*draft.rglob("*"), draft]:
            _fsync(path)
        if folder.exists():  # one that did not verify
            shutil.rmtree(folder)
        draft.rename(folder)
        _fsync(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return manifest


def verify(folder: Path) -> Manifest:
    """Checks every file's size and digest against the manifest. Raises Rejected with the first difference."""
    manifest = _read_manifest(folder)
    if manifest.format != FORMAT:
        raise Rejected(f"its format is {manifest.format} and this trainer reads {FORMAT}")
    for listed in manifest.files:
        path = folder / listed.path
        if not path.is_file():
            raise Rejected(f"{listed.path} is missing")
        if path.stat().st_size != listed.bytes:
            raise Rejected(f"{listed.path} has {path.stat().st_size} bytes and should have {listed.bytes}")
        if _sha256(path) != listed.sha256:
            raise Rejected(f"the bytes of {listed.path} are not those that were written (sha256 differs)")
    return manifest


def read(folder: Path) -> Saved:
    """Verifies a checkpoint and reads the trainer's state, random number generators included. Raises Rejected."""
    manifest = verify(folder)
    try:
        tensors = load_file(folder / "trainer" / "state.safetensors")
        values = json.loads((folder / "trainer" / "state.json").read_bytes())
    except (OSError, ValueError, SafetensorError) as error:
        raise Rejected(f"its trainer state cannot be read: {error}") from error
    return Saved(folder=folder, manifest=manifest, state=TrainerState(tensors, values))


def restore_rng(state: TrainerState) -> None:
    """Puts every random number generator back to where it stood when the state was written."""
    version, numbers, gauss = state.values["rng/python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state.tensors["rng/torch"])
    kind, place, has_gauss, cached = state.values["rng/numpy"]
    np.random.set_state((kind, state.tensors["rng/numpy"].numpy().astype(np.uint32), place, has_gauss, cached))
    for number in range(torch.cuda.device_count()):
        torch.cuda.set_rng_state(state.tensors[f"rng/cuda/{number}"], number)


def _name(step: int) -> str:
    return f"step-{step:06d}"


def _read_manifest(folder: Path) -> Manifest:
    """Raises Rejected when there is none or it cannot be read."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise Rejected("it has no manifest, so it was not finished") from None
    except (ValidationError, OSError) as error:
        raise Rejected(f"its manifest cannot be read: {error}") from error


def _is_marked(folder: Path) -> bool:
    try:
        return _read_manifest(folder).best
    except Rejected:
        return False


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    """In place of the one that is there, by a rename."""
    draft = folder / f".{MANIFEST}"
    draft.write_text(manifest.model_dump_json(indent=1))
    _fsync(draft)
    draft.rename(folder / MANIFEST)


def _write_state(folder: Path, state: TrainerState) -> None:
    folder.mkdir()
    kind, numbers, place, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = dict(state.tensors) | {"rng/torch": torch.get_rng_state()}
    tensors["rng/numpy"] = torch.from_numpy(np.asarray(numbers, dtype=np.int64))
    for number in range(torch.cuda.device_count()):
        tensors[f"rng/cuda/{number}"] = torch.cuda.get_rng_state(number)
    values = dict(state.values) | {"rng/python": random.getstate(), "rng/numpy": [kind, place, has_gauss, cached]}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps(values))


def _describe(path: Path, root: Path) -> CheckpointFile:
    return CheckpointFile(path=path.relative_to(root).as_posix(), bytes=path.stat().st_size, sha256=_sha256(path))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
