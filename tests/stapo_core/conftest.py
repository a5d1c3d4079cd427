"""Imports the trainer before any test file imports torch, and keeps torch to one thread beside other suites."""

from __future__ import annotations

import pytest

import stapo_core  # noqa: F401  # sets how OpenMP waits, which torch reads when it loads


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)
