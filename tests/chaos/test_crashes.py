"""Checkpoints on a disk that forgets what was not fsynced; and the disk notices when an fsync is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from api.store import artifacts
from stapo_core import folders
from tests.chaos.crashes import explore, record
from tests.chaos.disk import Bytes, Name, Rename, Sync, Tape

SEED = 3


def test_whatever_a_crash_leaves_the_newest_whole_checkpoint_is_found() -> None:
    findings = explore(seed=SEED, per_prefix=8)
    assert findings.breaches == []
    assert findings.num_states > 1000


def keep_names_in_memory(path: Path, sync: Any = folders.sync) -> None:
    if not path.is_dir():
        sync(path)


def keep_bytes_in_memory(path: Path, sync: Any = folders.sync) -> None:
    if path.is_dir():
        sync(path)


@pytest.mark.parametrize("careless", [keep_names_in_memory, keep_bytes_in_memory])
def test_a_missing_fsync_is_noticed(careless: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "sync", careless)
    assert any("was saved, and it resumes" in breach for breach in explore(seed=SEED, per_prefix=4).breaches)


def test_a_published_folder_whose_inner_names_are_not_on_the_disk_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "sync_all", lambda paths: folders.sync(list(paths)[-1]))
    breaches = explore(seed=SEED, per_prefix=4).breaches
    assert any("was published, and cannot be downloaded" in breach for breach in breaches)


def test_the_record_tells_of_writes_names_and_fsyncs_in_their_order(tmp_path: Path) -> None:
    tape = Tape(tmp_path)
    with tape.recording():
        draft = tmp_path / "draft"
        draft.write_bytes(b"abc")
        folders.sync(draft)
        draft.rename(tmp_path / "whole")
        folders.sync(tmp_path)
        (tmp_path / "whole").unlink()
    assert [type(change) for change in tape.changes] == [Name, Bytes, Sync, Rename, Sync, Name]


def test_a_whole_run_is_recorded(tmp_path: Path) -> None:
    tape = record(tmp_path)
    assert {type(change) for change in tape.changes} == {Name, Bytes, Sync, Rename}
    assert [note.saved for _, note in tape.marks] == [step for step in range(1, 9) for _ in range(2)]
