"""A checkpoint arrives whole or not at all, over connections that break and files that are damaged."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from client.http import Client, DownloadError
from tests.client.service import Answer, Asked, Service, serve

WEIGHTS = bytes(range(256)) * 2000
FILES = {"config.json": b'{"a": 1}', "trainer/state.safetensors": WEIGHTS, "empty": b""}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def listing(files: dict[str, bytes]) -> Answer:
    entries = [{"path": path, "bytes": len(content), "sha256": sha256(content)} for path, content in files.items()]
    return Answer(body=json.dumps({"id": "ftckpt-1", "files": entries}).encode())


def file_answer(asked: Asked, content: bytes, *, cut_after: int | None = None) -> Answer:
    start = int(asked.headers.get("range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    return Answer(status=206 if start else 200, body=content[start:], cut_after=cut_after)


def checkpoint(content_of: Callable[[Asked, str], Answer]) -> Callable[[Asked], Answer]:
    def answer(asked: Asked) -> Answer:
        path = asked.path.partition("/files/")[2]
        return content_of(asked, path) if path else listing(FILES)

    return answer


def whole(asked: Asked, path: str) -> Answer:
    return file_answer(asked, FILES[path])


def fetch(service: Service, folder: Path) -> Path:
    with Client(service.url, "k") as client:
        return client.download_checkpoint("ftckpt-1", folder)


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ranges(service: Service, path: str) -> list[str | None]:
    return [asked.headers.get("range") for asked in service.asked if asked.path.endswith(path)]


def test_the_folder_holds_every_file_and_nothing_else(tmp_path: Path) -> None:
    with serve(checkpoint(whole)) as service:
        folder = fetch(service, tmp_path / "out")
    assert content_of(folder) == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_progress_rises_to_the_whole_size(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with serve(checkpoint(whole)) as service, Client(service.url, "k") as client:
        client.download_checkpoint(
            "ftckpt-1", tmp_path / "out", on_progress=lambda done, total: seen.append((done, total))
        )
    total = sum(map(len, FILES.values()))
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_a_broken_connection_is_continued_where_it_broke(tmp_path: Path) -> None:
    cuts = [100_000, None]

    def break_once(asked: Asked, path: str) -> Answer:
        return file_answer(asked, FILES[path], cut_after=cuts.pop(0) if path.startswith("trainer") else None)

    with serve(checkpoint(break_once)) as service:
        folder = fetch(service, tmp_path / "out")
    assert content_of(folder) == FILES
    first, second = ranges(service, "state.safetensors")
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 100_000


def test_a_later_download_goes_on_with_what_an_earlier_one_left(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial" / "trainer"
    left.mkdir(parents=True)
    (left / "state.safetensors").write_bytes(WEIGHTS[:1234])
    (left.parent / "config.json").write_bytes(FILES["config.json"])
    (left.parent / "of another checkpoint").write_bytes(b"x")
    with serve(checkpoint(whole)) as service:
        folder = fetch(service, tmp_path / "out")
    assert content_of(folder) == FILES
    assert ranges(service, "state.safetensors") == ["bytes=1234-"]
    assert ranges(service, "config.json") == []


def test_bytes_of_another_file_are_thrown_away(tmp_path: Path) -> None:
    left = tmp_path / ".out.partial" / "trainer"
    left.mkdir(parents=True)
    (left / "state.safetensors").write_bytes(b"wrong" * 100)
    with serve(checkpoint(whole)) as service:
        folder = fetch(service, tmp_path / "out")
    assert content_of(folder) == FILES
    assert ranges(service, "state.safetensors") == ["bytes=500-", None]


def test_a_damaged_file_is_found_out_and_no_folder_appears(tmp_path: Path) -> None:
    def damage(asked: Asked, path: str) -> Answer:
        content = FILES[path]
        return file_answer(asked, content[:-1] + b"\x00" if path.startswith("trainer") else content)

    with serve(checkpoint(damage)) as service, pytest.raises(DownloadError, match=r"state\.safetensors.*sha256"):
        fetch(service, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_announced_digest_that_is_not_the_checkpoints_is_refused_at_once(tmp_path: Path) -> None:
    other = base64.b64encode(hashlib.sha256(b"other").digest()).decode()

    def announce(asked: Asked, path: str) -> Answer:
        return Answer(body=FILES[path], headers={"Repr-Digest": f"sha-256=:{other}:"})

    with serve(checkpoint(announce)) as service, pytest.raises(DownloadError, match="announces"):
        fetch(service, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("path", ["../outside", "/etc/outside", "a/../../outside", ""])
def test_a_file_outside_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with serve(lambda asked: listing({path: b"x"})) as service, pytest.raises(DownloadError, match="outside"):
        fetch(service, tmp_path / "out")
    assert not list(tmp_path.rglob("outside"))


def test_a_folder_that_is_already_right_is_left_alone(tmp_path: Path) -> None:
    with serve(checkpoint(whole)) as service:
        fetch(service, tmp_path / "out")
        num_asked = len(service.asked)
        fetch(service, tmp_path / "out")
    assert len(service.asked) == num_asked + 1


def test_a_folder_that_is_something_else_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with serve(checkpoint(whole)) as service, pytest.raises(DownloadError, match="exists"):
        fetch(service, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]
