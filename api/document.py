"""What the framework's OpenAPI document leaves out: the media type of refusals, and the scopes that a key must have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

PROBLEM = "application/problem+json"
SCOPES = "x-required-scopes"


def complete_document(app: FastAPI, document: dict[str, Any]) -> dict[str, Any]:
    """The same document, completed in place; doing it twice changes nothing."""
    scopes = {route.operation_id or route.name: sorted(_scopes(route.dependant)) for route in _routes(app)}
    for methods in document["paths"].values():
        for operation in methods.values():
            operation[SCOPES] = scopes[operation["operationId"]]
            for status, response in operation["responses"].items():
                content = response.get("content", {})
                if status >= "400" and "application/json" in content:
                    response["content"] = {PROBLEM: content["application/json"]}
                    operation["responses"][status] = _shared(document, status, response)
    return document


def _shared(document: dict[str, Any], status: str, response: dict[str, Any]) -> dict[str, Any]:
    """A reference to the refusal that most operations have in common; what says more than usual stays in place."""
    phrase = HTTPStatus(int(status)).phrase
    if response["description"] != phrase:
        return response
    name = "".join(word.capitalize() for word in re.findall(r"[A-Za-z]+", phrase))
    document["components"].setdefault("responses", {})[name] = response
    return {"$ref": f"#/components/responses/{name}"}


def _routes(app: FastAPI) -> Iterator[APIRoute]:
    return (route for route in app.routes if isinstance(route, APIRoute))


def _scopes(dependant: Dependant) -> set[str]:
    own = set(getattr(dependant.call, "scopes", ()))
    return own.union(*(_scopes(each) for each in dependant.dependencies))
