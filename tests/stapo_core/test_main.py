"""The real process: exit codes, the lock, signals, the parent."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stapo_core.folders import verify
from tests.stapo_core.tiny import make_run_folder, read_events


@contextmanager
def trainer(run_dir: Path, *options: str, **popen: Any) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "stapo_core", str(run_dir), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, **popen) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(run_dir: Path, kind: str, *, timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        spool = run_dir / "events.jsonl"
        if spool.exists() and f'"type":"{kind}"' in spool.read_text():
            return
        time.sleep(0.05)
    raise AssertionError(f"no {kind} event within {timeout_s} s")


def test_a_finished_run_exits_0_and_says_finished(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=1)
    (run_dir / "events.jsonl").write_bytes(b'{"torn')

    with trainer(run_dir) as process:
        assert process.wait(60) == 0

    events = read_events(run_dir)
    assert (events[-1]["type"], events[-1]["reason"], events[-1]["step"]) == ("finished", "num_steps_reached", 1)
    assert (run_dir / "lock").read_text() == f"{process.pid}\n"


def test_sigterm_ends_a_run_within_seconds_with_exit_75_and_a_checkpoint(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=100_000)

    with trainer(run_dir) as process:
        wait_for(run_dir, "step")
        with trainer(run_dir) as second:
            assert second.wait(10) == 76
        asked = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 75
        assert time.monotonic() - asked < 10

    events = read_events(run_dir)
    last_step = max(event["step"] for event in events if event["type"] == "step")
    assert (events[-1]["type"], events[-1]["reason"], events[-1]["step"]) == ("finished", "stopped", last_step)
    assert (run_dir / "checkpoints" / f"step-{last_step:06d}" / "manifest.json").is_file()


def failure(run_dir: Path) -> dict[str, Any]:
    failed = read_events(run_dir)[-1]
    assert failed["type"] == "failed"
    return failed


def write_config(run_dir: Path, change: dict[str, Any]) -> None:
    path = run_dir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_an_unknown_field_exits_78_and_is_named(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, sampling={"temprature": 1.0})

    with trainer(run_dir) as process:
        assert process.wait(30) == 78

    assert failure(run_dir)["param"] == "train.sampling.temprature"
    assert failure(run_dir)["retryable"] is False


def test_a_missing_file_exits_78_and_is_named(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path)
    write_config(run_dir, {"training_file": str(tmp_path / "absent.jsonl")})

    with trainer(run_dir) as process:
        assert process.wait(60) == 78

    assert failure(run_dir)["param"] == "training_file"
    assert "absent.jsonl" in failure(run_dir)["message"]


def test_a_crash_exits_1_with_the_stage_and_a_trace(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=2, checkpoint={"every_steps": 1})
    (run_dir / "checkpoints").write_text("a file where a folder should be")

    with trainer(run_dir) as process:
        _, log = process.communicate(timeout=60)

    assert process.returncode == 1
    assert (failure(run_dir)["stage"], failure(run_dir)["code"], failure(run_dir)["retryable"]) == (
        "saving",
        "crashed",
        True,
    )
    assert b"Traceback" in log


def test_the_trainer_dies_with_its_parent(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=100_000)

    with trainer(run_dir, "--die-with-parent", stdin=subprocess.PIPE) as process:
        wait_for(run_dir, "started")
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(5) == 1


def test_an_estimate_is_printed_and_nothing_is_started(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path)

    command = [sys.executable, "-X", "importtime", "-m", "stapo_core", str(run_dir), "--estimate"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert re.search(r"^peak +\d+ MiB$", done.stdout, re.MULTILINE)
    assert " torch\n" not in done.stderr
    assert [path.name for path in run_dir.iterdir()] == ["config.json"]


@pytest.mark.parametrize("arguments", [[], ["/nowhere"]])
def test_a_run_directory_must_be_named_and_exist(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "stapo_core", *arguments]

    assert subprocess.run(command, capture_output=True, check=False).returncode in (2, 78)


def test_a_run_whose_files_may_grow_no_further_halts_with_exit_74_and_its_last_checkpoint(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=100_000, checkpoint={"every_steps": 1})

    with trainer(run_dir) as process:
        wait_for(run_dir, "checkpoint")
        largest = 2 * (run_dir / "events.jsonl").stat().st_size + 10_000  # there is room for events, not for weights
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
        assert process.wait(30) == 74

    halted = read_events(run_dir)[-1]
    assert (halted["type"], halted["reason"], halted["stage"]) == ("halted", "storage_full", "saving")
    assert "File too large" in halted["message"]
    newest = sorted((run_dir / "checkpoints").iterdir())[-1]
    assert verify(newest).step == max(event["step"] for event in read_events(run_dir) if event["type"] == "checkpoint")
