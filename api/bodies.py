"""What a request may not say: in a JSON body a number that is none, or half of a character; in an address a name twice.

Python reads the first two, so both would reach a field that takes anything, such as a JSON schema or the changes of a
fork, and neither can be stored or given back. Of a name that comes twice the last would count, whatever the first says.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

import orjson
from fastapi import Request

from api.errors import FieldError, Unprocessable

_HALF = re.compile("[\ud800-\udfff]")


async def check_body(request: Request) -> None:
    """A dependency of every route. Raises Unprocessable naming the place of what cannot be."""
    if "json" not in request.headers.get("content-type", ""):
        return
    try:
        orjson.loads(await request.body())
    except orjson.JSONDecodeError:
        try:
            body = await request.json()
        except (ValueError, RecursionError):
            return  # it is no JSON at all, which is said where the body is read
        faults = [FieldError(pointer, f"{pointer}: {what}") for pointer, what in _find_faults(body)]
        if faults:
            param = faults[0].pointer[1:].replace("/", ".") or None
            raise Unprocessable(faults[0].detail, param=param, errors=faults[:100]) from None


async def check_query(request: Request) -> None:
    """A dependency of every route, none of which takes a list. Raises Unprocessable naming what comes twice."""
    for name, number in Counter(name for name, _ in request.query_params.multi_items()).items():
        if number > 1:
            raise Unprocessable(f"'{name}' stands {number} times in the address; give it once.", param=name)


def _find_faults(body: Any) -> Iterator[tuple[str, str]]:
    left = [("", body)]
    while left:
        pointer, value = left.pop()
        if isinstance(value, dict):
            for key in value:
                if not _is_whole(key):
                    yield pointer, f"the name {_shown(key)} holds half of a surrogate pair; remove it."
            left += [(f"{pointer}/{_escaped(key)}", each) for key, each in reversed(value.items())]
        elif isinstance(value, list):
            left += [(f"{pointer}/{number}", each) for number, each in reversed(list(enumerate(value)))]
        elif isinstance(value, float) and not math.isfinite(value):
            yield pointer, f"{value} is not a finite number; give one, or leave it out."
        elif isinstance(value, str) and not _is_whole(value):
            yield pointer, "the text holds half of a surrogate pair; remove it."


def _is_whole(text: str) -> bool:
    return _HALF.search(text) is None


def _escaped(key: str) -> str:
    return _shown(key).replace("~", "~0").replace("/", "~1")


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()
