"""A program that hangs is a finding, and no traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from client import doctor
from client.doctor import _accelerators, _program
from tests.client.processes import hanging_program


def test_a_server_that_does_not_tell_its_version_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.2)
    program = hanging_program(tmp_path / "postgres")
    found = _program("Postgres", lambda: program, "STAPO_DATABASE_URL")
    assert (found.ok, "timed out" in found.detail, "STAPO_DATABASE_URL" in found.remedy) == (False, True, True)


def test_a_driver_that_hangs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.2)
    hanging_program(tmp_path / "nvidia-smi")
    monkeypatch.setenv("PATH", str(tmp_path))
    card, _ = _accelerators()
    assert (card.ok, card.is_needed, "timed out" in card.detail) == (False, False, True)
