"""A config alone has no foreign program run: the trainer's starter must allow it, and the kernel be able to hold it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stapo_core.config.graders.programs import CodeGrader
from stapo_core.graders import UserCodeRefused, build_grader
from stapo_core.sandbox import landlock
from tests.stapo_core.tiny import make_run_folder, read_events


def make_code_run(folder: Path) -> Path:
    """A run whose grader runs the responses as programs against `assert f(0) == answer`."""
    run_dir = make_run_folder(folder, num_steps=1)
    config = json.loads((run_dir / "config.json").read_text())
    config["grader"] = {
        "type": "code", "program": "whole_text", "input": "f = lambda x: {{sample.output_text}}",
        "reference": "assert f(0) == {{item.answer}}",
    }  # fmt: skip
    (run_dir / "config.json").write_text(json.dumps(config))
    return run_dir


def train(run_dir: Path, **environment: str) -> int:
    command = [sys.executable, "-m", "stapo_core", str(run_dir)]
    passed = {name: value for name, value in os.environ.items() if name != "STAPO_USER_CODE"}
    return subprocess.run(command, env=passed | {"OMP_NUM_THREADS": "1"} | environment).returncode


@pytest.mark.parametrize("environment", [{}, {"STAPO_USER_CODE": "off"}, {"STAPO_USER_CODE": "1"}])
def test_a_run_is_refused_where_its_starter_did_not_allow_it(tmp_path: Path, environment: dict[str, str]) -> None:
    run_dir = make_code_run(tmp_path)
    assert train(run_dir, **environment) == 78
    (failed,) = read_events(run_dir)
    assert (failed["code"], failed["param"], failed["retryable"]) == ("user_code_disabled", "grader", False)
    assert "STAPO_USER_CODE=sandboxed" in failed["message"]


def test_a_run_is_graded_by_its_programs_where_it_is_allowed(tmp_path: Path) -> None:
    run_dir = make_code_run(tmp_path)
    assert train(run_dir, STAPO_USER_CODE="sandboxed") == 0
    steps: list[dict[str, Any]] = [event for event in read_events(run_dir) if event["type"] == "step"]
    assert len(steps) == 1
    assert 0.0 <= steps[0]["metrics"]["reward/mean"] <= 1.0


def test_where_the_kernel_cannot_hold_a_program_none_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    with pytest.raises(UserCodeRefused, match="none is run: the kernel offers no Landlock"):
        build_grader(CodeGrader(type="code"), allows_user_code=True)
