"""A checkpoint is whole or is not there, and what does not verify is refused with its reason."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from stapo_core import folders
from stapo_core.checkpoint import Checkpoints, TrainerState, read, restore_rng, write
from stapo_core.config import CheckpointConfig
from stapo_core.folders import Rejected, verify
from stapo_core.policy import Policy
from stapo_core.spool import Spool
from tests.stapo_core.tiny import make_policy, read_events


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make_policy()


def make_state() -> TrainerState:
    return TrainerState({"exp_avg/w": torch.arange(3.0)}, {"num_updates": 5})


def make_checkpoints(run_dir: Path, *, keep: int = 3) -> Checkpoints:
    return Checkpoints(run_dir, CheckpointConfig(keep=keep), spool=Spool(run_dir / "events.jsonl"))


def test_what_was_written_comes_back_bit_for_bit_and_loads_as_an_ordinary_model(tmp_path: Path, policy: Policy) -> None:
    folder = tmp_path / "step-000005"
    write(folder, 5, policy, make_state())

    saved = read(folder)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder).state_dict()

    assert saved.step == 5
    assert saved.state.tensors["exp_avg/w"].tolist() == [0, 1, 2]
    assert saved.state.values["num_updates"] == 5
    assert all(torch.equal(loaded[name], value) for name, value in policy.weights().items())
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".bin", ".pt", ".pkl", ".pth")]


def test_every_random_number_generator_goes_on_where_it_stood(tmp_path: Path, policy: Policy) -> None:
    write(tmp_path / "a", 1, policy, TrainerState())
    expected = (torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist())

    restore_rng(read(tmp_path / "a").state)

    assert (torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()) == expected


def test_a_state_from_a_machine_with_other_gpus_is_restored_as_far_as_they_are_the_same(
    tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "a", 1, policy, TrainerState({"rng/cuda/0": torch.arange(3), "rng/cuda/5": torch.arange(5)}))
    state = read(tmp_path / "a").state
    restored: dict[int, list[int]] = {}
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda found, number: restored.update({number: found.tolist()}))

    restore_rng(state)

    assert restored == {0: [0, 1, 2]}


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Any, str]] = {
    "one bit of the weights": (lambda f: flip_a_bit(f / "model.safetensors"), "sha256 differs"),
    "one bit of the state": (lambda f: flip_a_bit(f / "trainer" / "state.safetensors"), "sha256 differs"),
    "a cut file": (lambda f: (f / "model.safetensors").write_bytes(b"short"), "has 5 bytes and should have"),
    "a lost file": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "no manifest"),
    "a torn manifest": (lambda f: (f / "manifest.json").write_text('{"format": 1'), "cannot be read"),
    "another format": (
        lambda f: (f / "manifest.json").write_text(json.dumps({"format": 99, "step": 1, "files": []})),
        "format is 99",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_checkpoint_is_rejected_with_its_reason(name: str, tmp_path: Path, policy: Policy) -> None:
    damage, reason = DAMAGE[name]
    write(tmp_path / "step-000001", 1, policy, make_state())
    damage(tmp_path / "step-000001")

    with pytest.raises(Rejected, match=reason):
        verify(tmp_path / "step-000001")


def test_the_newest_that_verifies_is_taken_and_newer_ones_are_reported(tmp_path: Path, policy: Policy) -> None:
    checkpoints = make_checkpoints(tmp_path)
    for step in (1, 2, 3):
        checkpoints.save(step, policy, make_state())
    flip_a_bit(tmp_path / "checkpoints" / "step-000003" / "model.safetensors")
    (tmp_path / "checkpoints" / ".tmp-step-000004-99").mkdir()

    found = make_checkpoints(tmp_path).newest()

    assert found is not None
    assert found.step == 2
    rejected = [event for event in read_events(tmp_path) if event["type"] == "checkpoint_rejected"]
    assert [event["folder"] for event in rejected] == ["checkpoints/step-000003"]
    assert "sha256 differs" in rejected[0]["reason"]
    assert not list((tmp_path / "checkpoints").glob(".tmp-*"))


def test_a_rejected_checkpoint_is_replaced_when_its_step_is_reached_again(tmp_path: Path, policy: Policy) -> None:
    checkpoints = make_checkpoints(tmp_path)
    checkpoints.save(1, policy, make_state())
    flip_a_bit(tmp_path / "checkpoints" / "step-000001" / "model.safetensors")

    checkpoints.save(1, policy, make_state())

    assert verify(tmp_path / "checkpoints" / "step-000001").step == 1


def test_only_the_newest_are_kept(tmp_path: Path, policy: Policy) -> None:
    checkpoints = make_checkpoints(tmp_path, keep=2)
    for step in (1, 2, 3):
        checkpoints.save(step, policy, make_state())

    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000002", "step-000003"]


def test_a_step_of_seven_digits_is_newer_than_one_of_six(tmp_path: Path, policy: Policy) -> None:
    checkpoints = make_checkpoints(tmp_path, keep=2)
    for step in (999_998, 999_999, 1_000_000):
        checkpoints.save(step, policy, make_state())

    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"step-999999", "step-1000000"}
    found = make_checkpoints(tmp_path).newest()
    assert found is not None
    assert found.step == 1_000_000


def test_the_best_is_kept_however_old_and_gives_way_to_a_better_one(tmp_path: Path, policy: Policy) -> None:
    checkpoints = make_checkpoints(tmp_path, keep=1)
    for step in (1, 2, 3):
        checkpoints.save(step, policy, make_state(), is_best=step == 1)
    first = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    for step in (4, 5):
        checkpoints.save(step, policy, make_state(), is_best=step == 4)
    second = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())

    assert (first, second) == (["step-000001", "step-000003"], ["step-000004", "step-000005"])
    assert [event["best"] for event in read_events(tmp_path)] == [True, False, False, True, False]


def test_a_checkpoint_can_be_marked_as_the_best_after_it_was_saved(tmp_path: Path, policy: Policy) -> None:
    checkpoints = make_checkpoints(tmp_path)
    checkpoints.save(1, policy, make_state())

    for _ in range(2):
        checkpoints.mark_best(1, final=False)

    assert verify(tmp_path / "checkpoints" / "step-000001").best
    assert [event["best"] for event in read_events(tmp_path)] == [False, True]


def test_what_is_saved_after_a_resume_is_not_pushed_out_by_a_damaged_one(tmp_path: Path, policy: Policy) -> None:
    checkpoints = make_checkpoints(tmp_path, keep=1)
    checkpoints.save(3, policy, make_state(), is_best=True)
    (tmp_path / "checkpoints" / "step-000003" / "manifest.json").write_text("{")

    checkpoints.save(2, policy, make_state())

    assert verify(tmp_path / "checkpoints" / "step-000002").step == 2


def test_a_save_that_fails_at_any_write_leaves_the_last_checkpoint_and_nothing_else(
    tmp_path: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = make_checkpoints(tmp_path)
    checkpoints.save(1, policy, make_state())
    synced = folders.sync
    for failing in (1, 5, 10):
        calls = iter(range(1, 100))

        def fail(path: Path, calls: Any = calls, failing: int = failing) -> None:
            if next(calls) == failing:
                raise OSError(28, "No space left on device")
            synced(path)

        monkeypatch.setattr(folders, "sync", fail)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.save(2, policy, make_state())

        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000001"]
        assert verify(tmp_path / "checkpoints" / "step-000001").step == 1


def test_a_checkpoint_found_at_start_can_be_announced_again_word_for_word(tmp_path: Path, policy: Policy) -> None:
    make_checkpoints(tmp_path).save(1, policy, make_state())
    resumed = make_checkpoints(tmp_path)
    found = resumed.newest()
    assert found is not None

    resumed.announce(found.manifest, final=False)

    first, second = ({k: v for k, v in event.items() if k != "time"} for event in read_events(tmp_path))
    assert first == second


def test_a_checkpoint_event_lists_every_file_with_its_digest(tmp_path: Path, policy: Policy) -> None:
    make_checkpoints(tmp_path).save(1, policy, make_state(), final=True)

    (event,) = read_events(tmp_path)
    folder = tmp_path / event["folder"]
    listed = {file["path"] for file in event["files"]}

    assert event["final"]
    assert listed == {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} - {"manifest.json"}
    assert {"model.safetensors", "config.json", "generation_config.json", "tokenizer.json"} <= listed
