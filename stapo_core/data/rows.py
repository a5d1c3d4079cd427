"""Reads one row of JSON strictly, and checks the prompt in it. Knows bytes; it knows no files and no positions.

A row is taken by a fast parser only where it is certain that the strict one would read the same: see `_read_fast`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from stapo_core.data.faults import Fault

MAX_LINE_BYTES = 2**20
MAX_DEPTH = 32
MAX_DIGITS = 1000
ROLES = ("system", "developer", "user", "assistant")

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NOT_BRACKET = re.compile(rb"[^\[\]{}]+")
_LARGE = 2.0**63
_BOM = b"\xef\xbb\xbf"


def read_row(raw: bytes) -> dict[str, Any]:
    """The row that a line holds. Raises Fault."""
    row = _read_fast(raw)
    return _read_strictly(raw) if row is None else row


def check_prompt(row: Mapping[str, Any]) -> None:
    """Raises Fault unless the row has a prompt: a text, or messages that end with what is to be answered."""
    prompt = row.get("prompt")
    if type(prompt) is str and "messages" not in row and not prompt.isspace() and prompt:
        return
    if "prompt" in row and "messages" in row:
        raise Fault("two_prompts", "the row has both 'prompt' and 'messages'; keep one")
    name = "messages" if "messages" in row else "prompt"
    if name not in row:
        raise Fault("no_prompt", "the row has no 'prompt'; add one (a string or a list of messages)")
    prompt = row[name]
    if isinstance(prompt, str) and name == "prompt":
        raise Fault("empty_prompt", "'prompt' is empty; write the problem in it")
    if not isinstance(prompt, list):
        wanted = "a string or a list of messages" if name == "prompt" else "a list of messages"
        raise Fault("prompt_type", f"'{name}' is a JSON {kind_of(prompt)}; it must be {wanted}")
    _check_messages(name, prompt)


def prompt_text(row: Mapping[str, Any]) -> str:
    """The text that the model is to read; of messages, their contents."""
    prompt = row.get("prompt", row.get("messages"))
    if isinstance(prompt, str):
        return prompt
    return "\n".join(message["content"] for message in prompt or [])


def look_up(row: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path, or None where there is none (a JSON null counts as none)."""
    value: Any = row
    for key in path.split("."):
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value


def kind_of(value: Any) -> str:
    """What JSON calls a value."""
    names = {dict: "object", list: "array", str: "string", bool: "boolean", int: "number", float: "number"}
    return names.get(type(value), "null")


def show(value: Any) -> str:
    """A value as it may stand in a message: short, and in characters that every terminal has."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 60 else f"{text[:57]}..."


# --- the fast way -----------------------------------------------------------------------------------------------


class _Doubt(Exception):
    """The strict reader must decide."""


def _read_fast(raw: bytes) -> dict[str, Any] | None:
    r"""The row by a parser in Rust, or None where the strict reader might see it otherwise.

    That parser refuses what is not UTF-8, not JSON or not finite. It lets pass a key that stands twice (the first value
    is lost), and it rounds integers beyond 64 bits. The second shows in the value. The first shows in the colons: each
    of the line stands after a key or inside a string, so when as many colons were read as were written, no key was
    lost. Only an escape could write a colon without one: a line with `\u003` in it is left to the strict reader.
    """
    if b"\\u003" in raw:
        return None
    try:
        row = orjson.loads(raw)
        if type(row) is not dict or _count_colons(row, 1) != raw.count(b":"):
            return None
    except (orjson.JSONDecodeError, _Doubt):
        return None
    return row


def _count_colons(value: Any, depth: int) -> int:
    """The colons that wrote a value which holds others. Raises _Doubt for a large number, and beyond MAX_DEPTH."""
    if depth > MAX_DEPTH:
        raise _Doubt
    count = 0
    if type(value) is dict:
        count = len(value)
        for key in value:
            if ":" in key:
                count += key.count(":")
        value = value.values()
    for member in value:
        if type(member) is str:
            if ":" in member:
                count += member.count(":")
        elif type(member) is dict or type(member) is list:
            count += _count_colons(member, depth + 1)
        elif type(member) is float and not -_LARGE < member < _LARGE:
            raise _Doubt
    return count


# --- the strict way ---------------------------------------------------------------------------------------------


def _read_strictly(raw: bytes) -> dict[str, Any]:
    if raw.startswith(_BOM):
        raise Fault("byte_order_mark", "the file begins with a byte order mark; save it as UTF-8 without one")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Fault("not_utf8", f"byte {error.start + 1} is not UTF-8; save the file as UTF-8") from error
    if _depth(raw) > MAX_DEPTH:
        raise Fault("too_deep", f"the row is nested deeper than {MAX_DEPTH} levels; flatten it")
    try:
        row = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        where = f"at column {error.colno} ({error.msg})"
        raise Fault("not_json", f"not valid JSON {where}; write one JSON object per line") from error
    if not isinstance(row, dict):
        raise Fault("not_an_object", f"the row is a JSON {kind_of(row)}; write one JSON object per line")
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
        raise Fault("duplicate_key", f"the key {show(twice)} stands twice in one object; keep one")
    return found


def _refuse_constant(name: str) -> None:
    raise Fault("not_finite", f"{name} is not JSON; write a finite number, a string or null")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise Fault("not_finite", f"the number {show(digits)} is too large; write it as a string")
    return number


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise Fault("long_integer", f"an integer has more than {MAX_DIGITS} digits; write it as a string")
    return int(digits)


def _refuse_lone_surrogates(value: Any) -> None:
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            message = "half of a surrogate pair (\\ud800 to \\udfff) stands alone; write the whole character"
            raise Fault("lone_surrogate", message)
    elif isinstance(value, dict):
        for key, member in value.items():
            _refuse_lone_surrogates(key)
            _refuse_lone_surrogates(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_lone_surrogates(member)


def _check_messages(name: str, messages: Sequence[Any]) -> None:
    if not messages:
        raise Fault("empty_prompt", f"'{name}' is an empty list; add at least one user message")
    for place, message in enumerate(messages):
        where = f"{name}[{place}]"
        if not isinstance(message, dict):
            raise _bad(f"{where} is a JSON {kind_of(message)}; it must be an object with 'role' and 'content'")
        if unknown := sorted(set(message) - {"role", "content"}):
            raise _bad(f"{where} has the unknown field {show(unknown[0])}; only 'role' and 'content' are read")
        if message.get("role") not in ROLES:
            raise _bad(f"{where}.role is {show(message.get('role'))}; it must be one of {', '.join(ROLES)}")
        if not isinstance(message.get("content"), str):
            raise _bad(f"{where}.content is a JSON {kind_of(message.get('content'))}; it must be a string")
    if messages[-1]["role"] == "assistant":
        raise _bad(f"'{name}' ends with an assistant message; end with what the model is to answer")
    if not any(message["content"].strip() for message in messages):
        raise Fault("empty_prompt", f"'{name}' holds no text; write the problem in it")


def _bad(message: str) -> Fault:
    return Fault("bad_messages", message)
