"""A base model small enough for tests, and jobs that run long or short on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import make_home


@pytest.fixture(scope="session")
def warm_base() -> Iterator[Path]:
    """What `python -m stapo_core.warmup` makes, after a single supervised step."""
    folder = make_home() / "base"
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "stapo_core.warmup", str(folder), "--steps", "1"]
    subprocess.run(command, env=env, check=True, capture_output=True)
    yield folder
    shutil.rmtree(folder.parent)
