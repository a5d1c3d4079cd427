"""Where a fault of the input lies, as its writer would say it: without the tags of tagged unions."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from api.errors import FieldError
from api.schemas import JobCreate

_TAGGED = {"algorithm", "grader"}
_CHOICE = re.compile(r"constrained-(int|float)|literal\['auto'\]")  # which half of `number or "auto"` has refused


def field_path(loc: Sequence[str | int]) -> list[str]:
    """The names from the outermost field to the one at fault."""
    parts = [str(part) for part in loc if not (isinstance(part, str) and _CHOICE.fullmatch(part))]
    return [part for index, part in enumerate(parts) if not (index and parts[index - 1] in _TAGGED and part in _TAGS)]


def write_pointer(path: Sequence[str]) -> str:
    """The JSON pointer (RFC 6901) to a field."""
    return "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)


def read_faults(error: ValidationError, *, below: str = "") -> list[FieldError]:
    """Every fault that a model found; `below` is the pointer to where its input stands."""
    return [
        FieldError(pointer=below + write_pointer(field_path(fault["loc"])), detail=fault["msg"])
        for fault in error.errors()
    ]


def _tags(schema: dict[str, Any]) -> set[str]:
    text = json.dumps(schema)
    return {tag for mapping in re.findall(r'"mapping": ({[^}]*})', text) for tag in json.loads(mapping)}


_TAGS = _tags(JobCreate.model_json_schema())
