"""A run's checkpoints: the policy's folder with the trainer's state in it, written whole and resumed exactly.

Knows tensors, safetensors and JSON, never pickle. It does not know what the numbers mean: the learner gives and
takes its own state. How a folder is whole or absent stands in `folders`.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stapo_core.distributed import Ranks
from stapo_core.folders import Folders, Manifest, Rejected, verify, write_folder
from stapo_core.policy import Policy


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


class Checkpoints(Folders):
    """The checkpoints of one run directory."""

    def newest(self) -> Saved | None:
        """The newest checkpoint that verifies; each newer one that does not is reported with its reason."""
        saved = self.find(read)
        if saved is not None:
            self.saved_step = saved.step
        return saved

    def save(
        self, step: int, policy: Policy, state: TrainerState, *, final: bool = False, is_best: bool = False
    ) -> None:
        """Writes the checkpoint of `step`, whole or not at all; the oldest beyond `keep` go, but never the best."""
        self.put(step, lambda draft: _fill(draft, policy, state), final=final, is_best=is_best)


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
    """Writes one checkpoint, whole or not at all. Raises OSError when the disk is full or fails."""
    return write_folder(folder, step, lambda draft: _fill(draft, policy, state), is_best=is_best)


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
    """Puts every random number generator back to where it stood when the state was written; a GPU that was not there
    then keeps its own.
    """
    version, numbers, gauss = state.values["rng/python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state.tensors["rng/torch"])
    kind, place, has_gauss, cached = state.values["rng/numpy"]
    np.random.set_state((kind, state.tensors["rng/numpy"].numpy().astype(np.uint32), place, has_gauss, cached))
    for number in range(torch.cuda.device_count()):
        if (found := state.tensors.get(f"rng/cuda/{number}")) is not None:
            torch.cuda.set_rng_state(found, number)


def _fill(draft: Path, policy: Policy, state: TrainerState) -> None:
    try:
        policy.save(draft)
        _write_state(draft / "trainer", state)
    except SafetensorError as error:  # it tells what the system said, but in its own words
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), str(error)) from error


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
