"""The fast parser takes a row only where the strict one reads the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stapo_core.data import Fault
from stapo_core.data.rows import _read_fast, _read_strictly, read_row
from tests.fuzz.data_reader import _same

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=4), inner, max_size=3)),
    max_leaves=12,
)
PIECES = st.sampled_from(
    [
        '"a"',
        '"b"',
        '"a:"',
        '":"',
        '"\\u003a"',
        ":",
        ",",
        "{",
        "}",
        "[",
        "]",
        "1",
        "-0",
        "1e400",
        "NaN",
        "1E5",
        " ",
        "\t",
    ]
)


def strictly(raw: bytes) -> Any:
    try:
        return _read_strictly(raw)
    except Fault:
        return None


@settings(max_examples=150, deadline=None, print_blob=True)
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.booleans())
def test_any_object_is_read_as_the_strict_reader_reads_it(value: dict[str, Any], ascii_only: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    fast = _read_fast(raw)
    assert fast is None or _same(fast, strictly(raw))


@settings(max_examples=200, deadline=None, print_blob=True)
@given(st.lists(PIECES, max_size=14))
def test_whatever_the_fast_reader_takes_the_strict_one_reads_alike(pieces: list[str]) -> None:
    raw = f"{{{''.join(pieces)}}}".encode()
    fast = _read_fast(raw)
    assert fast is None or _same(fast, strictly(raw))


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a": 1, "a": 2}',
        b'{"a": ":", "a": ""}',
        b'{"a": "", "a": ":"}',
        b'{"a": "", "a": "\\u003a\\u003A"}',
        b'{"x": [{"y": 1, "y": {"z": ":::"}}]}',
        b'{"\\u0061": 1, "a": 2}',
    ],
)
def test_a_key_that_stands_twice_never_passes(raw: bytes) -> None:
    assert _read_fast(raw) is None
    with pytest.raises(Fault, match="stands twice"):
        read_row(raw)


def test_rows_as_they_usually_are_take_the_fast_way() -> None:
    raw = b'{"prompt": "Question: what is 1:2?", "answer": "0.5", "meta": {"level": 3, "tags": ["a:b"]}}'
    assert _read_fast(raw) == strictly(raw)
    assert _read_fast(raw) is not None


def test_an_integer_beyond_64_bits_keeps_all_its_digits() -> None:
    assert read_row(b'{"x": 123456789012345678901234567890}') == {"x": 123456789012345678901234567890}
