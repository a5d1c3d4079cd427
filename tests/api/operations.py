"""Every operation of the OpenAPI document, and what it takes to call one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from api.main import create_app
from api.settings import Settings

PUBLIC = {"check_health", "check_readiness"}
BODIES: dict[str, dict[str, Any]] = {
    "update_job": {"name": "x"},
    "update_rollout": {"pinned": True},
    "create_api_key": {"name": "x"},
    "validate_grader": {"grader": {"type": "numeric", "reference": "1"}},
    "probe_grader": {
        "grader": {"type": "numeric", "reference": "1"},
        "model": "tiny",
        "training_file": "file-nobody-has",
    },
    "run_grader": {"grader": {"type": "numeric", "reference": "1"}, "model_sample": "1"},
}


@dataclass(frozen=True)
class Operation:
    """One method on one path."""

    name: str
    method: str
    path: str
    path_names: tuple[str, ...]
    queries: tuple[tuple[str, dict[str, Any]], ...]

    def url(self, values: dict[str, str]) -> str:
        """The path with its variables filled in and escaped."""
        return re.sub(r"{(\w+)(:path)?}", lambda match: quote(values[match[1]], safe=""), self.path)

    @property
    def body(self) -> dict[str, Any] | None:
        """A JSON body that is understood, for what takes one."""
        return None if self.method in ("GET", "DELETE") else BODIES.get(self.name, {})


@cache
def document() -> dict[str, Any]:
    """The OpenAPI document; it depends on no setting."""
    return create_app(Settings(home=Path("unused"), database_url="unused://", broker_url="unused://")).openapi()


def operations() -> list[Operation]:
    found = []
    for path, methods in document()["paths"].items():
        for method, operation in methods.items():
            queries = [each for each in operation.get("parameters", []) if each["in"] == "query"]
            found.append(
                Operation(
                    name=operation["operationId"],
                    method=method.upper(),
                    path=path,
                    path_names=tuple(re.findall(r"{(\w+)", path)),
                    queries=tuple((each["name"], each["schema"]) for each in queries),
                )
            )
    return found


OPERATIONS = operations()
"""In the order of the document."""
