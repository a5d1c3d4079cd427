"""The arithmetic of the live chart, run where it has no page around it: in the Node that playwright brings along."""

from __future__ import annotations

import subprocess
from pathlib import Path

import playwright
import pytest

NODE = Path(playwright.__file__).parent / "driver" / "node"
MODULES = sorted((Path(__file__).parent / "static").glob("*.test.mjs"))


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name.removesuffix(".test.mjs"))
def test_a_module_of_the_live_chart_keeps_to_its_arithmetic(module: Path) -> None:
    done = subprocess.run([NODE, "--test", str(module)], capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "# pass 0" not in done.stdout
