from __future__ import annotations

import gzip
import json
import random
import resource
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stapo_core.data import MAX_LINE_BYTES, DataError, DataErrors, check_rows, read_rows, scan

ROWS = [{"prompt": f"{n}+1= é 日本", "answer": str(n + 1)} for n in range(2000)]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows"


def zstd(content: bytes) -> bytes:
    packed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return packed


def parquet(path: Path, **columns: Any) -> None:
    pq.write_table(pa.table(columns), path)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def refusals(path: Path) -> list[str]:
    return [str(found) for _, found in scan(path) if isinstance(found, DataError)]


@pytest.mark.parametrize(
    "content",
    [gzip.compress(TEXT), gzip.compress(TEXT[:999]) + gzip.compress(TEXT[999:]), zstd(TEXT[:999]) + zstd(TEXT[999:])],
)
def test_compressed_rows_are_the_plain_ones_also_in_several_members(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert read_rows(path) == ROWS


def test_parquet_rows_are_the_plain_ones(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path, compression="zstd", row_group_size=700)
    assert read_rows(path) == ROWS


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
@pytest.mark.parametrize("share", [0.2, 0.9])
def test_a_file_that_was_cut_off_is_refused_with_what_to_do(path: Path, pack: Any, share: float) -> None:
    whole = pack(TEXT)
    path.write_bytes(whole[: int(len(whole) * share)])
    assert "data is damaged" in refusals(path)[-1]
    assert "compress the file anew" in refusals(path)[-1]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_file_that_grows_out_of_all_proportion_is_refused(path: Path, pack: Any) -> None:
    path.write_bytes(pack(b" " * (17 * 2**20)))
    assert "grows to more than 200 times" in refusals(path)[-1]


def zstd_frame(window_log: int, num_blocks: int) -> bytes:
    """A frame by RFC 8878: a window of 2^window_log bytes, then blocks of a space that is repeated 2^17 times."""
    is_last = [False] * (num_blocks - 1) + [True]
    blocks = [(2**17 << 3 | 1 << 1 | last).to_bytes(3, "little") + b" " for last in is_last]
    return b"\x28\xb5\x2f\xfd\x00" + bytes([window_log - 10 << 3]) + b"".join(blocks)


def test_a_zstd_window_of_eight_mebibytes_is_read(path: Path) -> None:
    path.write_bytes(zstd_frame(23, 100))
    assert refusals(path) == [f"line 1: the line is longer than {MAX_LINE_BYTES} bytes; split or shorten it"]


def test_a_zstd_window_that_would_fill_the_memory_is_refused_with_the_remedy(path: Path) -> None:
    path.write_bytes(zstd_frame(24, 100))
    words = "the zstd window is larger than 8388608 bytes; pack with level 19 or less, without --long"
    assert refusals(path) == [words]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_refused_files_leave_nothing_in_memory(path: Path, pack: Any) -> None:
    whole = pack(random.Random(5).randbytes(900_000))
    path.write_bytes(whole[:-9])
    refusals(path)
    before = resident_bytes()
    for _ in range(100):
        assert "data is damaged" in refusals(path)[-1]
    assert resident_bytes() - before < 32 * 2**20


def test_lines_of_compressed_files_are_capped_and_numbered(path: Path) -> None:
    long = b'{"prompt": "' + b"x" * MAX_LINE_BYTES + b'"}\n'
    path.write_bytes(gzip.compress(TEXT + long + TEXT))
    assert refusals(path) == [f"line 2001: the line is longer than {MAX_LINE_BYTES} bytes; split or shorten it"]
    assert sum(isinstance(found, dict) for _, found in scan(path)) == 4000


def test_a_null_in_parquet_is_a_field_that_is_not_there(path: Path) -> None:
    messages = [[{"role": "user", "content": "hi", "name": None}], None]
    parquet(path, prompt=[None, "a"], messages=messages, level=[1, None])
    assert read_rows(path) == [{"messages": [{"role": "user", "content": "hi"}], "level": 1}, {"prompt": "a"}]


def test_a_row_of_parquet_is_checked_like_a_line(path: Path) -> None:
    parquet(path, prompt=["a", " ", "c"], x=[1.0, 2.0, float("nan")])
    assert refusals(path) == [
        "row 2: 'prompt' is empty; write the problem in it",
        "row 3: NaN is not JSON; write a finite number, a string or null",
    ]


def test_a_parquet_text_that_is_not_utf8_is_refused_by_its_row(path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["aaaaaa", "bbbbbb"]}), path, compression="none", use_dictionary=False)
    path.write_bytes(path.read_bytes().replace(b"bbbbbb", b"b\xffbbbb"))
    assert refusals(path) == ["row 2: byte 2 is not UTF-8; save the file as UTF-8"]


def test_a_parquet_column_that_json_has_no_word_for_is_refused_by_name(path: Path) -> None:
    parquet(path, prompt=["a"], seen=pa.array([0], pa.timestamp("ms")))
    assert refusals(path) == ['the column "seen" holds timestamp[ms]; cast it to a string']


def test_a_parquet_column_that_stands_twice_is_refused_by_name(path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["prompt", "prompt"]), path)
    assert refusals(path) == ['the column "prompt" stands twice; keep one']


def test_damaged_parquet_is_refused(path: Path) -> None:
    parquet(path, prompt=["a"] * 100)
    path.write_bytes(path.read_bytes()[:-20])
    assert "the parquet data is damaged" in refusals(path)[-1]


def test_faults_of_one_reason_are_all_counted_and_a_hundred_of_them_listed(path: Path) -> None:
    path.write_bytes(b'{"prompt": "a"}\n' * 250 + b"{\n" * 150)
    with pytest.raises(DataErrors) as caught:
        check_rows(path, ("answer",))
    assert caught.value.counts == {"missing_field:answer": 250, "not_json": 150}
    assert [error.line for error in caught.value.errors] == [*range(1, 101), *range(251, 351)]
    assert str(caught.value).endswith("(and 399 more)")
