"""Reads training rows: JSONL, one object per line, checked strictly and in bounded memory.

Knows files and positions; must stay free of torch, numpy and tokenizers, because the API checks uploads with it.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

MAX_LINE_BYTES = 2**20
MAX_DEPTH = 32
MAX_ERRORS = 100
ROLES = ("system", "developer", "user", "assistant")

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NOT_BRACKET = re.compile(rb"[^\[\]{}]+")
_JSON_SPACE = b" \t\r\n"


class DataError(ValueError):
    """A fault in a data file: what is wrong and what to do, and the line (from 1) unless it is the whole file."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message if line is None else f"line {line}: {message}")
        self.message = message
        self.line = line


class DataErrors(ValueError):
    """All faults found in one file, at most MAX_ERRORS of them."""

    def __init__(self, errors: tuple[DataError, ...]) -> None:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"{errors[0]}{more}")
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Summary:
    """What a checked file holds."""

    num_rows: int


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a file, in order. Raises DataError at the first fault, and when there is no row."""
    rows = [row for _, row in iter_rows(path)]
    if not rows:
        raise _empty()
    return rows


def iter_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line, row), one line in memory at a time; blank lines are skipped. Raises DataError at a fault."""
    for line, found in _scan(path):
        if isinstance(found, DataError):
            raise found
        yield line, found


def check_rows(path: Path, required_fields: Collection[str]) -> Summary:
    """Checks every row; `required_fields` are dotted paths that each row must hold, such as `answer` or `meta.answer`.

    Raises DataErrors with the first MAX_ERRORS faults.
    """
    errors: list[DataError] = []
    num_rows = 0
    for line, found in _scan(path):
        if isinstance(found, DataError):
            errors.append(found)
        else:
            num_rows += 1
            errors.extend(
                DataError(_missing(field), line) for field in required_fields if look_up(found, field) is None
            )
        if len(errors) >= MAX_ERRORS:
            break
    if not num_rows and not errors:
        errors.append(_empty())
    if errors:
        raise DataErrors(tuple(errors[:MAX_ERRORS]))
    return Summary(num_rows)


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None where there is none (a JSON null counts as none)."""
    value: Any = row
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def take(num_rows: int, seed: int, step: int, num_prompts: int) -> list[int]:
    """The rows of step `step` (from 0): a seeded permutation per epoch, laid end to end and cut into steps.

    A function of its arguments alone, so a resumed run needs no iterator state.
    """
    if num_rows < 1:
        raise ValueError("there are no rows to take from")
    places = range(step * num_prompts, (step + 1) * num_prompts)
    return [_permutation(num_rows, seed, place // num_rows)[place % num_rows] for place in places]


@lru_cache(maxsize=4)
def _permutation(num_rows: int, seed: int, epoch: int) -> list[int]:
    rows = list(range(num_rows))
    random.Random(f"{seed}/{epoch}").shuffle(rows)  # noqa: S311  # an order of rows, not a secret
    return rows


# --- lines ------------------------------------------------------------------------------------------------------


def _scan(path: Path) -> Iterator[tuple[int, dict[str, Any] | DataError]]:
    try:
        file = path.open("rb")
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); name an existing JSONL file") from error
    with file:
        for line, raw in enumerate(_lines(file), start=1):
            if raw is None:
                yield line, DataError(f"the line is longer than {MAX_LINE_BYTES} bytes; split or shorten it", line)
            elif raw.strip(_JSON_SPACE):
                yield line, _read(raw, line)


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """Lines, ended by a line feed alone; None stands for one over the cap, which is skipped piece by piece."""
    while raw := file.readline(MAX_LINE_BYTES + 1):
        if len(raw) <= MAX_LINE_BYTES or raw.endswith(b"\n"):
            yield raw
            continue
        while (rest := file.readline(MAX_LINE_BYTES)) and not rest.endswith(b"\n"):
            pass
        yield None


def _read(raw: bytes, line: int) -> dict[str, Any] | DataError:
    try:
        row = _parse(raw)
        _check_prompt(row)
    except _Fault as fault:
        return DataError(str(fault), line)
    return row


class _Fault(Exception):
    """What is wrong with a line, before the line's number is known."""


def _parse(raw: bytes) -> dict[str, Any]:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise _Fault("the file begins with a byte order mark; save it as UTF-8 without one")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _Fault(f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    if _depth(raw) > MAX_DEPTH:
        raise _Fault(f"the row is nested deeper than {MAX_DEPTH} levels; flatten it")
    try:
        row = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise _Fault(f"not valid JSON at column {error.colno} ({error.msg}); write one JSON object per line") from error
    if not isinstance(row, dict):
        raise _Fault(f"the row is a JSON {_kind(row)}; write one JSON object per line")
    if b"\\u" in raw:
        _refuse_lone_surrogates(row)
    return row


def _depth(raw: bytes) -> int:
    """The deepest nesting of brackets outside strings, found before any recursive parser sees the line."""
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return 0
    deepest = depth = 0
    for bracket in _NOT_BRACKET.sub(b"", _STRING.sub(b"", raw)):
        depth += 1 if bracket in b"[{" else -1
        deepest = max(deepest, depth)
        if deepest > MAX_DEPTH:
            break
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise _Fault(f"the key {_show(twice)} stands twice in one object; keep one")
    return found


def _refuse_constant(name: str) -> None:
    raise _Fault(f"{name} is not JSON; write a finite number, a string or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise _Fault(f"the number {_show(digits)} is too large; write it as a string")
    return number


def _integer(digits: str) -> int:
    if len(digits) > 1000:
        raise _Fault("an integer has more than 1000 digits; write it as a string")
    return int(digits)


def _refuse_lone_surrogates(value: Any) -> None:
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise _Fault("half of a surrogate pair (\\ud800 to \\udfff) stands alone; write the whole character")
    elif isinstance(value, dict):
        for key, member in value.items():
            _refuse_lone_surrogates(key)
            _refuse_lone_surrogates(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_lone_surrogates(member)


# --- rows -------------------------------------------------------------------------------------------------------


def _check_prompt(row: Mapping[str, Any]) -> None:
    if "prompt" in row and "messages" in row:
        raise _Fault("the row has both 'prompt' and 'messages'; keep one")
    name = "messages" if "messages" in row else "prompt"
    if name not in row:
        raise _Fault("the row has no 'prompt'; add one (a string or a list of messages)")
    prompt = row[name]
    if isinstance(prompt, str) and name == "prompt":
        if not prompt.strip():
            raise _Fault("'prompt' is empty; write the problem in it")
    elif isinstance(prompt, list):
        _check_messages(name, prompt)
    else:
        wanted = "a string or a list of messages" if name == "prompt" else "a list of messages"
        raise _Fault(f"'{name}' is a JSON {_kind(prompt)}; it must be {wanted}")


def _check_messages(name: str, messages: Sequence[Any]) -> None:
    if not messages:
        raise _Fault(f"'{name}' is an empty list; add at least one user message")
    for place, message in enumerate(messages):
        where = f"{name}[{place}]"
        if not isinstance(message, dict):
            raise _Fault(f"{where} is a JSON {_kind(message)}; it must be an object with 'role' and 'content'")
        if unknown := sorted(set(message) - {"role", "content"}):
            raise _Fault(f"{where} has the unknown field {_show(unknown[0])}; only 'role' and 'content' are read")
        if message.get("role") not in ROLES:
            raise _Fault(f"{where}.role is {_show(message.get('role'))}; it must be one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise _Fault(f"{where}.content is a JSON {_kind(message.get('content'))}; it must be a string")
    if messages[-1]["role"] == "assistant":
        raise _Fault(f"'{name}' ends with an assistant message; end with what the model is to answer")
    if not any(message["content"].strip() for message in messages):
        raise _Fault(f"'{name}' holds no text; write the problem in it")


def _missing(field: str) -> str:
    return f"the row has no field '{field}', which the grader reads; add it to every row"


def _empty() -> DataError:
    return DataError("the file holds no rows; write one JSON object per line")


def _kind(value: Any) -> str:
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."
