"""What a child that reads rows may write, beside the rows."""

from __future__ import annotations

import os

import pytest

from stapo_core.data.child import child_output
from stapo_core.data.faults import DataError


def test_a_child_that_says_too_much_is_at_its_end_and_fills_no_disk() -> None:
    with child_output("tests.stapo_core.data.shouting", {}) as output:
        with pytest.raises(DataError, match="check the file"):
            list(iter(lambda: output.read(65536), b""))
        assert os.fstat(output._words.fileno()).st_size <= 2**20
