"""Several processes under torchrun train one run: the same curve, one voice, one set of checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from stapo_core.folders import verify
from tests.stapo_core.test_main import wait_for
from tests.stapo_core.test_train import metrics, run
from tests.stapo_core.tiny import make_run_folder, read_events

SETTINGS: dict[str, Any] = {
    "num_steps": 5,
    "batch": {
        "num_prompts": 5,
        "group_size": 4,
        "max_tokens_per_microbatch": 64,
    },  # of 24 rows: the fifth step meets one row again
    "algorithm": {"kind": "dapo", "dynamic_sampling_rounds": 2},
}


def start(run_dir: Path, num_ranks: int) -> subprocess.Popen[bytes]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_ranks)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen([*launcher, "-m", "stapo_core", str(run_dir)], env=environment, stderr=subprocess.PIPE)


def test_two_ranks_draw_the_curve_of_one(tmp_path: Path) -> None:
    one, several = (make_run_folder(tmp_path / name, **SETTINGS) for name in ("one", "several"))
    run(one)

    with start(several, 2) as process:
        _, log = process.communicate(timeout=200)

    assert process.returncode == 0, log.decode()
    expected, found = metrics(one), metrics(several)
    assert expected.keys() == found.keys()
    for point, values in expected.items():
        numbers = {key: value for key, value in values.items() if value is not None}
        assert {key: found[point][key] for key in numbers} == pytest.approx(numbers, rel=1e-5, abs=1e-5), point
        assert {key for key, value in found[point].items() if value is None} == values.keys() - numbers.keys()
    assert [event["step"] for event in read_events(several) if event["type"] == "checkpoint"] == [2, 4, 5]
    assert verify(several / "checkpoints" / "step-000005").step == 5
    assert read_events(several)[-1]["reason"] == "num_steps_reached"


def test_ranks_stop_together_and_go_on_together(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, **SETTINGS | {"num_steps": 100_000, "evaluation": {}})

    with start(run_dir, 2) as process:
        wait_for(run_dir, "step", timeout_s=120.0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    last_step = max(event["step"] for event in read_events(run_dir) if event["type"] == "step")
    assert read_events(run_dir)[-1]["reason"] == "stopped"
    assert verify(run_dir / "checkpoints" / f"step-{last_step:06d}").step == last_step

    with start(run_dir, 2) as process:
        deadline = time.monotonic() + 120.0
        while read_events(run_dir)[-1]["type"] != "step" and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    started = [event["resume_step"] for event in read_events(run_dir) if event["type"] == "started"]
    assert started == [0, last_step]
