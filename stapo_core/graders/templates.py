"""Fills the dialect's variables, `{{sample.output_text}}` and `{{item.<field>}}`, into a grader's strings.

Ours is `{{item}}`, the whole row as JSON.

One pass: what is filled in is never read as a template again, since rows and responses are foreign text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stapo_core.data import look_up

OUTPUT_TEXT = "sample.output_text"
ITEM = "item"

_VARIABLE = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_ITEM = re.compile(r"item\.[^.\s]+(\.[^.\s]+)*")


class TemplateError(ValueError):
    """A template names something that does not exist."""


def fields(template: str) -> frozenset[str]:
    """Dotted paths of the item fields a template reads. Raises TemplateError for an unknown variable."""
    return frozenset(name.removeprefix("item.") for name in _variables(template) if name not in (OUTPUT_TEXT, ITEM))


def render(template: str, *, item: Mapping[str, Any], output_text: str) -> str:
    """Raises TemplateError for an unknown variable, or a field the item lacks."""

    def fill(match: re.Match[str]) -> str:
        name = match[1]
        _check(name)
        if name == OUTPUT_TEXT:
            return output_text
        if name == ITEM:
            return json.dumps(item, ensure_ascii=False)
        value = look_up(item, name.removeprefix("item."))
        if value is None:
            raise TemplateError(f"the row has no field '{name.removeprefix('item.')}', which the grader reads")
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _VARIABLE.sub(fill, template)


def _variables(template: str) -> Iterator[str]:
    for match in _VARIABLE.finditer(template):
        _check(match[1])
        yield match[1]


def _check(name: str) -> None:
    if name not in (OUTPUT_TEXT, ITEM) and not _ITEM.fullmatch(name):
        raise TemplateError(
            f"unknown variable '{{{{{name}}}}}'; use {{{{sample.output_text}}}} or {{{{item.<field of the row>}}}}"
        )
