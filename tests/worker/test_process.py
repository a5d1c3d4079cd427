"""What a trainer is started with: the operator's word on user code, and none of the service's addresses or secrets."""

from __future__ import annotations

import pytest

from worker.process import child_environment


def test_a_child_gets_the_operators_permission_and_nothing_else_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "BROKER_URL", "HOME", "API_KEY", "USER_CODE"):
        monkeypatch.setenv(f"STAPO_{name}", "sandboxed")
    passed = child_environment()
    assert {name: value for name, value in passed.items() if name.startswith("STAPO_")} == {
        "STAPO_USER_CODE": "sandboxed"
    }


def test_without_the_operators_permission_a_child_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAPO_USER_CODE", raising=False)
    assert "STAPO_USER_CODE" not in child_environment()
