"""Files of problems on their way through the form of a new run."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from client.http import Client
from client.objects import FileObject
from dashboard import problems
from tests.dashboard.conftest import DASHBOARD


class Counted(io.BytesIO):
    """A file that knows how many bytes were read of it."""

    num_read = 0

    def read(self, size: int | None = -1) -> bytes:
        found = super().read(size)
        self.num_read += len(found)
        return found


def test_the_first_lines_are_shown_and_of_a_large_file_only_its_start_is_read() -> None:
    file = Counted(b'{"prompt": "1+1="}\n' * 100_000)

    assert problems.head(file) == "\n".join(['{"prompt": "1+1="}'] * 3)
    assert problems.head(file).count("\n") == 2  # at every rerun, from wherever the file was left
    assert file.num_read < 10_000


def test_a_line_that_is_longer_than_the_page_is_cut() -> None:
    assert problems.head(io.BytesIO(b"x" * 100_000)) == "x" * 160


def test_what_cannot_be_seen_in_a_line_is_named() -> None:
    assert problems.head(io.BytesIO("a\u202eb\r\nc".encode())) == "a⟨U+202E⟩b\nc"


@pytest.mark.usefixtures("pages")
def test_a_refused_upload_is_told_at_every_look_and_sent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    upload = Client.upload_file

    def counted(self: Client, path: Path) -> FileObject:
        sent.append(path.name)
        return upload(self, path)

    monkeypatch.setattr(Client, "upload_file", counted)
    app = AppTest.from_file(str(DASHBOARD), default_timeout=20).switch_page(str(Path("views") / "new.py")).run()

    app.file_uploader(key="training_upload").set_value(("odd.jsonl", b"no JSON at all", "application/jsonl")).run()
    app.text_input(key="name").input("another").run()

    assert not app.exception
    assert len(app.error) == 1
    assert "odd" in app.error[0].value or "line 1" in app.error[0].value
    assert sent == ["odd.jsonl"]
