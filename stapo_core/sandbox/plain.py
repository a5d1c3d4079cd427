"""Values that cross the cage's wall, as JSON: numbers, texts, bytes and collections of them, exact types alone.

What is decoded here is foreign: only built-in types come out, so that no comparison runs foreign code.
"""

from __future__ import annotations

from typing import Any

MAX_DEPTH = 100


class NotPlain(ValueError):
    """A value that is no built-in one, or is nested too deep."""


def encode(value: Any, depth: int = 0) -> Any:
    """Raises NotPlain."""
    kind = type(value)
    if depth > MAX_DEPTH:
        raise NotPlain(f"nested deeper than {MAX_DEPTH}")
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return {"int": hex(value)}
    if kind is float:
        return {"float": value.hex()}
    if kind is complex:
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if kind is bytes or kind is bytearray:
        return {"bytes": value.hex()}
    if kind is dict:
        return {"dict": [[encode(key, depth + 1), encode(member, depth + 1)] for key, member in value.items()]}
    if kind in (list, tuple, set, frozenset):
        return {kind.__name__: [encode(member, depth + 1) for member in value]}
    raise NotPlain(f"a value of type {kind.__name__}")


def decode(data: Any, depth: int = 0) -> Any:
    """Raises NotPlain for what `encode` cannot have written."""
    if depth > MAX_DEPTH:
        raise NotPlain(f"nested deeper than {MAX_DEPTH}")
    if data is None or isinstance(data, bool | str):
        return data
    if not isinstance(data, dict) or len(data) != 1:
        raise NotPlain("no value")
    ((kind, held),) = data.items()
    try:
        return _build(kind, held, depth + 1)
    except (TypeError, ValueError, OverflowError, LookupError) as error:
        raise NotPlain(f"no {kind}: {error}") from error


def _build(kind: str, held: Any, depth: int) -> Any:
    match kind:
        case "int":
            return int(held, 16)
        case "float":
            return float.fromhex(held)
        case "complex":
            return complex(float.fromhex(held[0]), float.fromhex(held[1]))
        case "bytes":
            return bytes.fromhex(held)
        case "dict":
            return {decode(key, depth): decode(member, depth) for key, member in held}
        case "list" | "tuple" | "set" | "frozenset":
            members = [decode(member, depth) for member in held]
            return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](members)
    raise NotPlain(f"no kind of value is called {kind!r}")
