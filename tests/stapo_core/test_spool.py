"""Events are whole lines; what an earlier attempt tore off is cut away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stapo_core.events import Warned, parse_event
from stapo_core.spool import Spool


def test_an_event_is_one_line_with_the_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "events.jsonl")
    spool.emit(Warned, message="two\nlines", step=3)

    (line,) = (tmp_path / "events.jsonl").read_bytes().splitlines()
    event = parse_event(line)

    assert isinstance(event, Warned)
    assert (event.message, event.step) == ("two\nlines", 3)
    assert event.time > 1.7e9


@pytest.mark.parametrize("torn", [b'{"time": 1', b"x" * 200_000, b""])
def test_a_torn_tail_is_cut_off_and_whole_lines_stay(torn: bytes, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"a":1}\n{"b":2}\n' + torn)

    Spool(path).emit(Warned, message="next")

    lines = path.read_bytes().splitlines()
    assert lines[:2] == [b'{"a":1}', b'{"b":2}']
    assert json.loads(lines[2])["message"] == "next"
    assert len(lines) == 3


def test_a_file_of_nothing_but_a_torn_line_becomes_empty(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"time"')

    Spool(path)

    assert path.read_bytes() == b""
