"""No probe does harm from inside the cage, as root and as an ordinary user; without the cage, they do it."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stapo_core.sandbox.accounts import start, users
from tests.stapo_core.sandbox.bombs import BOMBS
from tests.stapo_core.sandbox.escape import DEPENDS_ON_THE_KERNEL, PROBES, is_harmful

Report = dict[str, dict[str, list[str]]]


@pytest.fixture(scope="module")
def reports() -> Iterator[dict[str, Report]]:
    """What came of every probe, by user; both are tried at once."""
    with tempfile.TemporaryDirectory(prefix="escapes-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        processes = {user: start("tests.stapo_core.sandbox.escape", user, folder) for user in users()}
        yield {user: _report(process) for user, process in processes.items()}


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_does_no_harm_but_for_the_cage(reports: dict[str, Report], probe: str, user: str) -> None:
    found = reports[user][probe]
    assert found["caged"] == []
    if is_harmful(probe, user) and probe not in DEPENDS_ON_THE_KERNEL:
        assert found["free"] != []


@pytest.mark.parametrize("user", users())
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_program_that_wants_too_much_ends_and_leaves_nothing(
    reports: dict[str, Report], bomb: str, user: str
) -> None:
    assert reports[user][bomb]["caged"] == []


@pytest.mark.parametrize("user", users())
def test_at_least_sixty_probes_do_harm_without_the_cage(reports: dict[str, Report], user: str) -> None:
    assert sum(found["free"] != [] for found in reports[user].values()) >= 60


def _report(process: subprocess.Popen[bytes]) -> Report:
    told, _ = process.communicate(timeout=280)
    assert process.returncode == 0
    report: Report = json.loads(told)
    return report
