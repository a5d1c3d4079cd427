from __future__ import annotations

import json
import tracemalloc
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stapo_core.data import (
    MAX_DEPTH,
    MAX_LINE_BYTES,
    DataError,
    DataErrors,
    check_rows,
    iter_rows,
    look_up,
    read_rows,
    take,
)

GOOD = b'{"prompt": "1+1=", "answer": "2"}'


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.jsonl"


def fault(path: Path, content: bytes) -> DataError:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_rows(path)
    return caught.value


def test_rows_come_in_order_and_blank_lines_are_skipped(path: Path) -> None:
    path.write_bytes(GOOD + b'\n\n  \t\r\n{"prompt": "2+2="}\r\n')
    assert read_rows(path) == [{"prompt": "1+1=", "answer": "2"}, {"prompt": "2+2="}]


def test_lines_are_numbered_as_an_editor_numbers_them(path: Path) -> None:
    path.write_bytes(b"\n" + GOOD + b"\n\n" + GOOD)
    assert [line for line, _ in iter_rows(path)] == [2, 4]


def test_other_line_separators_do_not_end_a_row(path: Path) -> None:
    path.write_text('{"prompt": "a\u2028b\u0085c"}\n', encoding="utf-8")
    assert read_rows(path) == [{"prompt": "a\u2028b\u0085c"}]


def test_messages_may_stand_for_a_prompt_under_both_names(path: Path) -> None:
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": "1+1?"}]
    path.write_text(json.dumps({"messages": messages}) + "\n" + json.dumps({"prompt": messages}))
    assert check_rows(path, ()).num_rows == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"not json", "not valid JSON at column 1"),
        (b'{"prompt": "a"} {"prompt": "b"}', "not valid JSON at column 17"),
        (b'{"prompt": "a",}', "not valid JSON"),
        (b"[1]", "JSON array"),
        (b'"text"', "JSON string"),
        (b"null", "JSON null"),
        (b'{"prompt": "\xff"}', "byte 13 is not UTF-8"),
        (b"\xef\xbb\xbf" + GOOD, "byte order mark"),
        (b'{"prompt": "a", "x": NaN}', "NaN is not JSON"),
        (b'{"prompt": "a", "x": -Infinity}', "-Infinity is not JSON"),
        (b'{"prompt": "a", "x": 1e999}', "too large"),
        (b'{"prompt": "a", "x": ' + b"9" * 5000 + b"}", "more than 1000 digits"),
        (b'{"prompt": "a", "x": {"y": 1, "y": 2}}', 'the key "y" stands twice'),
        (b'{"prompt": "\\ud800"}', "surrogate"),
        (b'{"prompt": "a", "x": ' + b"[" * 40 + b"]" * 40 + b"}", "nested deeper"),
        (b"[" * 500_000, "nested deeper"),
        (b'{"answer": "2"}', "no 'prompt'"),
        (b'{"prompt": " "}', "'prompt' is empty"),
        (b'{"prompt": 5}', "'prompt' is a JSON number"),
        (b'{"prompt": null}', "'prompt' is a JSON null"),
        (b'{"messages": "a"}', "'messages' is a JSON string"),
        (b'{"prompt": "a", "messages": []}', "both"),
        (b'{"prompt": []}', "empty list"),
        (b'{"prompt": ["a"]}', r"prompt[0] is a JSON string"),
        (b'{"prompt": [{"role": "tool", "content": "a"}]}', 'prompt[0].role is "tool"'),
        (b'{"prompt": [{"role": "user"}]}', "prompt[0].content is a JSON null"),
        (b'{"prompt": [{"role": "user", "content": "a", "name": "b"}]}', 'unknown field "name"'),
        (b'{"prompt": [{"role": "assistant", "content": "a"}]}', "ends with an assistant message"),
        (b'{"prompt": [{"role": "user", "content": " "}]}', "holds no text"),
    ],
)
def test_a_bad_line_is_named_with_its_remedy(path: Path, content: bytes, words: str) -> None:
    error = fault(path, GOOD + b"\n\n" + content + b"\n") if not content.startswith(b"\xef") else fault(path, content)
    assert error.line == (1 if content.startswith(b"\xef") else 3)
    assert words in error.message
    assert str(error) == f"line {error.line}: {error.message}"


@pytest.mark.parametrize("content", [b"", b"\n\n", b"   "])
def test_an_empty_file_is_refused(path: Path, content: bytes) -> None:
    error = fault(path, content)
    assert (error.line, str(error)) == (None, "the file holds no rows; write one JSON object per line")


def test_a_missing_file_is_named(path: Path) -> None:
    with pytest.raises(DataError, match=r"rows\.jsonl cannot be read \(No such file or directory\)"):
        read_rows(path)


def test_the_depth_limit_counts_brackets_outside_strings_alone(path: Path) -> None:
    deepest = "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1)
    path.write_text(json.dumps({"prompt": "[" * 500 + '\\"{'}) + "\n" + f'{{"prompt": "a", "x": {deepest}}}')
    assert check_rows(path, ()).num_rows == 2
    path.write_text(f'{{"prompt": "a", "x": [{deepest}]}}')
    with pytest.raises(DataErrors, match="nested deeper"):
        check_rows(path, ())


def test_a_line_may_have_as_many_bytes_as_the_cap_and_no_more(path: Path) -> None:
    frame = len('{"prompt": ""}')
    path.write_text(json.dumps({"prompt": "a" * (MAX_LINE_BYTES - frame)}) + "\n")
    assert check_rows(path, ()).num_rows == 1
    path.write_text(json.dumps({"prompt": "a" * (MAX_LINE_BYTES - frame + 1)}) + "\n" + GOOD.decode())
    with pytest.raises(DataErrors) as caught:
        check_rows(path, ())
    assert [error.line for error in caught.value.errors] == [1]


def test_a_huge_line_is_never_held_in_memory(path: Path) -> None:
    with path.open("wb") as file:
        for _ in range(64):
            file.write(b"[" * MAX_LINE_BYTES)
        file.write(b"\n" + GOOD + b"\n")
    tracemalloc.start()
    try:
        with pytest.raises(DataErrors) as caught:
            check_rows(path, ())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [error.line for error in caught.value.errors] == [1]
    assert peak < 8 * MAX_LINE_BYTES


def test_all_faults_are_collected_up_to_a_hundred(path: Path) -> None:
    path.write_bytes(b"\n".join([GOOD, b"{", b"[]", GOOD]))
    with pytest.raises(DataErrors) as caught:
        check_rows(path, ())
    assert [error.line for error in caught.value.errors] == [2, 3]
    assert "(and 1 more)" in str(caught.value)
    path.write_bytes(b"{\n" * 1000)
    with pytest.raises(DataErrors) as caught:
        check_rows(path, ())
    assert len(caught.value.errors) == 100


def test_a_field_the_grader_reads_must_stand_in_every_row(path: Path) -> None:
    path.write_text(
        '{"prompt": "a", "meta": {"answer": 0}}\n{"prompt": "b", "meta": {"answer": null}}\n{"prompt": "c"}'
    )
    with pytest.raises(DataErrors) as caught:
        check_rows(path, {"meta.answer"})
    assert [(error.line, "'meta.answer'" in error.message) for error in caught.value.errors] == [(2, True), (3, True)]


def test_looking_up_stops_where_the_path_ends() -> None:
    row: dict[str, Any] = {"a": {"b": 1}, "c": "text"}
    assert (look_up(row, "a.b"), look_up(row, "a.x"), look_up(row, "c.d")) == (1, None, None)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
@given(
    st.one_of(
        st.binary(),
        st.text().map(str.encode),
        st.lists(st.sampled_from(list('{}[]",:\\u0d8e1 \n'))).map("".join).map(str.encode),
    )
)
def test_no_bytes_raise_anything_but_data_errors(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with suppress(DataErrors):
        assert check_rows(path, {"answer"}).num_rows >= 1


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=9), JSON, max_size=3), min_size=1, max_size=4
    )
)
def test_every_valid_row_is_read_back_as_it_was(path: Path, extras: list[dict[str, Any]]) -> None:
    rows = [{"prompt": "a", **extra} for extra in extras]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_rows(path) == rows


# --- the order of rows ------------------------------------------------------------------------------------------


def test_an_epoch_takes_every_row_once() -> None:
    taken = [row for step in range(5) for row in take(20, seed=3, step=step, num_prompts=4)]
    assert sorted(taken) == list(range(20))
    assert taken != list(range(20))


def test_steps_cross_the_border_of_an_epoch_without_loss() -> None:
    taken = [row for step in range(30) for row in take(7, seed=1, step=step, num_prompts=3)]
    assert len(taken) == 90
    for epoch in range(12):
        assert sorted(taken[epoch * 7 : epoch * 7 + 7]) == list(range(7))


def test_a_step_larger_than_the_file_repeats_it() -> None:
    assert Counter(take(3, seed=0, step=0, num_prompts=6)) == {0: 2, 1: 2, 2: 2}


def test_the_order_follows_from_the_seed_and_the_epoch_alone() -> None:
    assert take(50, seed=7, step=9, num_prompts=8) == take(50, seed=7, step=9, num_prompts=8)
    first, second = take(50, seed=7, step=0, num_prompts=50), take(50, seed=7, step=1, num_prompts=50)
    assert first != second
    assert first != take(50, seed=8, step=0, num_prompts=50)


def test_the_order_is_the_same_in_every_version() -> None:
    assert take(10, seed=0, step=0, num_prompts=10) == [1, 0, 2, 4, 9, 3, 8, 6, 7, 5]


def test_no_rows_give_nothing_to_take() -> None:
    with pytest.raises(ValueError, match="no rows"):
        take(0, seed=0, step=0, num_prompts=1)
