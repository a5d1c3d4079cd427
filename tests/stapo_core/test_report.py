"""What a step tells of its rewards, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from stapo_core import report
from tests.stapo_core.tiny import make_groups


def test_groups_without_signal_are_told_apart_by_whether_they_were_too_hard_or_too_easy() -> None:
    wanted = [(0.0, 0.0), (1.0, 1.0), (1.0, 1.0), (0.0, 1.0), (0.5, 0.5)]
    groups = [
        replace(group, rewards=rewards)
        for group, rewards in zip(make_groups(num_prompts=5, group_size=2), wanted, strict=True)
    ]

    told = report._rewards(groups)

    assert told["reward/groups_without_advantage"] == pytest.approx(4 / 5)
    assert told["reward/groups_all_zero"] == pytest.approx(1 / 5)
    assert told["reward/groups_all_one"] == pytest.approx(2 / 5)
