"""Plain values survive the wall with their types; whatever else is written there is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stapo_core.sandbox.plain import MAX_DEPTH, NotPlain, decode, encode

SIMPLE = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(SIMPLE, inner)
        | st.sets(SIMPLE)
        | st.frozensets(SIMPLE)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_comes_back_equal_and_of_its_type(value: Any) -> None:
    found = decode(json.loads(json.dumps(encode(value))))
    assert found == value
    assert type(found) is type(value)


def test_no_number_is_rounded_and_nan_stays_nan() -> None:
    assert decode(encode(0.1 + 0.2)) == 0.30000000000000004
    assert math.isnan(decode(encode(float("nan"))))
    assert math.copysign(1.0, decode(encode(-0.0))) == -1.0


def test_depth_is_bounded_both_ways() -> None:
    value: Any = 0
    written: Any = None
    for _ in range(MAX_DEPTH + 1):
        value, written = [value], {"list": [written]}
    with pytest.raises(NotPlain, match="nested deeper"):
        encode(value)
    with pytest.raises(NotPlain, match="nested deeper"):
        decode(written)


@pytest.mark.parametrize(
    "written",
    [
        7, [], {}, {"int": 5, "float": 3}, {"int": "x"}, {"int": None}, {"set": [{"list": []}]}, {"bytes": "x"},
        {"dict": [1]}, {"dict": [[None]]}, {"object": []}, {"complex": ["0x1p0"]}, {"float": "one"}, {"list": 3},
    ],
)  # fmt: skip
def test_what_no_value_is_written_as_is_refused(written: Any) -> None:
    with pytest.raises(NotPlain):
        decode(written)
