"""The example of adding an algorithm, in ARCHITECTURE.md, is the code as it stands."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_every_line_of_the_example_is_a_line_of_the_code() -> None:
    section = (ROOT / "ARCHITECTURE.md").read_text().split("## Adding an algorithm")[1]
    block = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert block is not None
    shown = [line for line in block[1].splitlines() if line and not line.startswith("# ")]
    sources = ("stapo_core/config/algorithms.py", "stapo_core/algorithms/__init__.py")
    written = {line for source in sources for line in (ROOT / source).read_text().splitlines()}

    assert len(shown) == 9
    assert [line for line in shown if line not in written] == []
