"""What is wrong with a config, for people: the field by the path they wrote, and a value that would work.

Knows pydantic alone. pydantic's own paths name the members of tagged unions, which nobody writes.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Any, Literal

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: `param` is the dotted path of the field, empty for the whole config."""

    param: str
    message: str

    def __str__(self) -> str:
        return f"{self.param}: {self.message}" if self.param else self.message


def find_faults(error: ValidationError, model: type[BaseModel]) -> list[Fault]:
    """The faults that `model` found in its input, in its order."""
    return [_fault(details, model) for details in error.errors()]


def _fault(details: ErrorDetails, model: type[BaseModel]) -> Fault:
    path, field = _follow(details["loc"], model)
    context = details.get("ctx", {})
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "union_tag_invalid":
        path.append(context["discriminator"].strip("'"))
        message = f"{context['tag']!r} is not known; write one of {context['expected_tags']}"
    elif details["type"] == "missing":
        message = "it is missing; add it"
    elif details["type"] == "extra_forbidden":
        message = "there is no such field; remove it or mend its name"
    elif field is not None and isinstance(field.default, bool | int | float | str):
        message = f"{message} (given: {details['input']!r}); the default, {field.default!r}, works"
    return Fault(".".join(path), message)


def _follow(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[list[str], FieldInfo | None]:
    """The path without the tags of unions, and the field at its end where the config has one there."""
    path: list[str] = []
    held: list[type[BaseModel]] = [model]
    field: FieldInfo | None = None
    for part in loc:
        if isinstance(part, int) or (field is not None and typing.get_origin(field.annotation) is dict):
            path.append(str(part))
            field = None  # a place in a list or a key: what stands there is still to be named
            continue
        tagged = [each for each in held if part in _tags(each)]
        if len(held) > 1 and tagged:
            held = tagged
            continue
        path.append(part)
        field = next((each.model_fields[part] for each in held if part in each.model_fields), None)
        held = [] if field is None else list(_models(field.annotation))
    return path, field


def _tags(model: type[BaseModel]) -> set[Any]:
    """The values of the literal that tells this member of a union from the others."""
    tags = (model.model_fields[name].annotation for name in ("kind", "type") if name in model.model_fields)
    return {value for tag in tags if typing.get_origin(tag) is Literal for value in typing.get_args(tag)}


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The config classes that an annotation may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif typing.get_origin(annotation) in (typing.Union, UnionType, typing.Annotated, tuple, list, dict):
        for part in typing.get_args(annotation):
            yield from _models(part)
