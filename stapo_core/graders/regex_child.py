"""The child of the regex grader. Knows Python's regular expressions alone."""

from __future__ import annotations

import re
from collections import deque
from typing import Any

from stapo_core.graders.child import Judge, serve


def make_judge(settings: dict[str, Any]) -> Judge:
    """A judge for one pattern."""
    pattern = re.compile(settings["pattern"], re.IGNORECASE if settings["ignore_case"] else 0)

    def find(text: str) -> re.Match[str] | None:
        if settings["match"] == "fullmatch":
            return pattern.fullmatch(text)
        if not settings["has_reference"]:
            return pattern.search(text)
        found = deque(pattern.finditer(text), maxlen=1)  # the last: answers stand at the end
        return found[0] if found else None

    def judge(text: str, reference: str) -> float:
        match = find(text)
        if match is None:
            return 0.0
        if not settings["has_reference"]:
            return 1.0
        held = match[1] if pattern.groups else match[0]
        if held is None:
            return 0.0
        held, reference = held.strip(), reference.strip()
        return float(held.casefold() == reference.casefold() if settings["ignore_case"] else held == reference)

    return judge


if __name__ == "__main__":
    serve(make_judge)
