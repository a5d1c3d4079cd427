"""A child that reads rows and whose library says more on stderr than anybody reads."""

from __future__ import annotations

import os
import sys
from typing import Any

from stapo_core.data.child import serve


def write_rows(_: dict[str, Any]) -> None:
    """64 MiB of words, and one row."""
    for _number in range(1024):
        os.write(sys.stderr.fileno(), bytes(2**16))
    print("{}")  # noqa: T201  # the row


if __name__ == "__main__":
    serve(write_rows)
