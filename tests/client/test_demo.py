from __future__ import annotations

import os
from pathlib import Path

import pytest

from client import demo


def test_what_the_demo_starts_does_not_read_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.write_text("""#!/bin/sh\nprintf '{"stdin": "%s"}' "$(/usr/bin/readlink /proc/$$/fd/0)"\n""")
    python.chmod(0o755)
    monkeypatch.setattr("client.demo.sys.executable", str(python))
    terminal, (reading, writing) = os.dup(0), os.pipe()
    os.dup2(reading, 0)
    try:
        told = demo.sample_answers(tmp_path / "model", tmp_path / "problems.jsonl")
    finally:
        os.dup2(terminal, 0)
        for descriptor in (terminal, reading, writing):
            os.close(descriptor)
    assert told == [{"stdin": "/dev/null"}]
