"""`python -m client.generate`: writes the types of the service's answers from docs/openapi.json.

Knows the document and nothing of the service behind it; a test holds what it writes against the document.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = _ROOT / "docs" / "openapi.json"
OBJECTS = _ROOT / "client" / "objects.py"

Schema = dict[str, Any]

_HEAD = '''"""The service's answers as types, named as in docs/openapi.json. An answer is the plain dict that came.

Written by `python -m client.generate`. Knows the document and nothing behind it.
"""

from __future__ import annotations

from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

Item = TypeVar("Item")


class Page(TypedDict, Generic[Item]):
    """One page of a list; `last_id` is the `after` of the next."""
'''
_PLAIN = {"string": "str", "integer": "int", "number": "float", "boolean": "bool", "null": "None"}
_PAGE = "ListOf_"


def main() -> None:
    """Writes client/objects.py."""
    OBJECTS.write_text(render(json.loads(DOCUMENT.read_text(encoding="utf-8"))), encoding="utf-8")


def render(document: Schema) -> str:
    """The module with every schema that an answer is made of."""
    schemas: dict[str, Schema] = document["components"]["schemas"]
    found: set[str] = set()
    waiting = [name for operation in _operations(document) for name in _named(answer_of(operation))]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _named(schemas[name])
    page = next(schemas[name] for name in sorted(found) if name.startswith(_PAGE))
    parts = [_HEAD + "\n" + "\n".join(_fields(page, item="Item")) + "\n"]
    parts += [_declared(name, schemas[name]) for name in sorted(found) if not name.startswith(_PAGE)]
    return "\n\n".join(parts)


def answer_of(operation: Schema) -> Schema:
    """The schema of an operation's JSON when it succeeds: {} where it has none."""
    for status, response in sorted(operation["responses"].items(), reverse=True):
        schema: Schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        if schema and status < "300":
            return schema
    return {}


def annotation(schema: Schema, *, item: str | None = None) -> str:
    """The Python type of a schema; `item` is what the `data` of a page holds."""
    match schema:
        case {"$ref": str(reference)}:
            name = reference.rpartition("/")[2]
            return f"Page[{name.removeprefix(_PAGE).rstrip('_')}]" if name.startswith(_PAGE) else item or name
        case {"anyOf": several}:
            return " | ".join(annotation(each, item=item) for each in several)
        case {"const": value}:
            return f"Literal[{_quoted(value)}]"
        case {"enum": values}:
            return f"Literal[{', '.join(map(_quoted, values))}]"
        case {"type": "array", **rest}:
            return f"list[{annotation(rest.get('items') or {}, item=item)}]"
        case {"type": "object", "additionalProperties": dict(each)}:
            return f"dict[str, {annotation(each, item=item)}]"
        case {"type": "object"}:
            return "dict[str, Any]"
    return _PLAIN.get(schema.get("type", ""), "Any")


def _operations(document: Schema) -> Iterator[Schema]:
    for methods in document["paths"].values():
        yield from methods.values()


def _named(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"].rpartition("/")[2]
        for each in schema.values():
            yield from _named(each)
    elif isinstance(schema, list):
        for each in schema:
            yield from _named(each)


def _declared(name: str, schema: Schema) -> str:
    if "properties" not in schema:
        values = "".join(f"    {_quoted(each)},\n" for each in schema["enum"])
        return f"{name} = Literal[\n{values}]\n"
    told = " ".join(schema["description"].split())
    return f'class {name}(TypedDict):\n    """{told}"""\n\n' + "\n".join(_fields(schema)) + "\n"


def _fields(schema: Schema, *, item: str | None = None) -> Iterator[str]:
    for name, each in schema["properties"].items():
        # What has a default is always in an answer, though the document does not require it.
        is_there = name in schema.get("required", ()) or "default" in each
        kind = annotation(each, item=item)
        yield f"    {name}: {kind if is_there else f'NotRequired[{kind}]'}"


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


if __name__ == "__main__":
    main()
