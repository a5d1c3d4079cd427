"""The command that interrupts a run in each of its steps: it counts what is equal, and sees what is not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.resume import SETTINGS, Questions, differences, go, interrupt, main, remains
from tests.stapo_core.tiny import make_run_folder


def test_a_run_interrupted_in_each_of_its_steps_equals_the_whole_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--steps", "2"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "stopped in step 1, resumed after 0: equal",
        "stopped in step 2, resumed after 1: equal",
        "2/2 interrupted runs equal the one that never stopped, bit for bit",
    ]


def test_one_bit_of_one_tensor_is_a_difference(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=1, **SETTINGS)
    go(run_dir, Questions())
    wanted = remains(run_dir)
    path = run_dir / "checkpoints" / "step-000001" / "model.safetensors"
    tensors = load_file(path)
    first = next(iter(tensors.values()))
    first.view(torch.int32).view(-1)[0] ^= 1
    save_file(tensors, path)

    assert differences(wanted, wanted) == []
    assert differences(remains(run_dir), wanted) == ["tensors"]


def test_each_stop_falls_inside_its_step() -> None:
    marks = [0, 10, 35, 36]

    assert all(marks[step - 1] <= interrupt(step, marks) < marks[step] for step in (1, 2, 3))
