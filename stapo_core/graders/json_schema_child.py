"""The child of the json_schema grader. Knows JSON and its schemas; it fetches nothing."""

from __future__ import annotations

import json
import re
from typing import Any

from stapo_core.graders.child import Judge, serve

_FENCE = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```[ \t]*$", re.DOTALL | re.MULTILINE)


def make_judge(settings: dict[str, Any]) -> Judge:
    """A judge for one schema."""
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from referencing import Registry

    validator = Draft202012Validator(settings["schema"], registry=Registry())

    def judge(text: str, _: str) -> float:
        fenced = _FENCE.findall(text)
        try:
            value = json.loads(fenced[-1] if fenced else text, parse_constant=_refuse, object_pairs_hook=_unique)
        except (ValueError, RecursionError):  # the response is at fault: that is what a 0 is for
            return 0.0
        return float(validator.is_valid(value))

    return judge


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice")
    return found


if __name__ == "__main__":
    serve(make_judge)
