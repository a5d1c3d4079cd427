from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from worker.devices import Devices, find_devices


def test_each_trainer_has_a_gpu_of_its_own_while_there_is_one_and_then_the_least_used() -> None:
    devices = Devices(["3", "5"])
    with ExitStack() as others:
        with devices.lend() as first, devices.lend() as second:
            assert {first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]} == {"3", "5"}
            third = others.enter_context(devices.lend())
        with devices.lend() as fourth:
            assert fourth != third


def test_without_a_gpu_a_trainer_is_told_of_none() -> None:
    with Devices([]).lend() as told:
        assert told == {}


def test_the_gpus_are_those_that_cuda_may_see_else_those_with_a_device_file(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert find_devices({"CUDA_VISIBLE_DEVICES": "GPU-8f2c, 1"}, tmp_path) == ["GPU-8f2c", "1"]
    assert find_devices({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == []
    assert find_devices({}, tmp_path) == ["0", "1"]
