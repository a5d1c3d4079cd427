"""Where the bytes of an upload wait until it is whole: in the state folder.

The framework spools them in the temporary folder, which in a container is memory, and has no setting for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import SpooledTemporaryFile

from starlette import formparsers


@contextmanager
def spooling_to(folder: Path) -> Iterator[None]:
    """Until the block ends, uploads of more than a megabyte are spooled to `folder`, in files without a name."""

    class Spool(SpooledTemporaryFile[bytes]):
        def __init__(self, max_size: int = 0) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            super().__init__(max_size, dir=str(folder))

    usual = vars(formparsers)["SpooledTemporaryFile"]
    vars(formparsers)["SpooledTemporaryFile"] = Spool
    try:
        yield
    finally:
        vars(formparsers)["SpooledTemporaryFile"] = usual
