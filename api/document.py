"""What the framework's OpenAPI document leaves out: refusals' media type, scopes, header fields, links and examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from api.examples import EXAMPLES, Example, fill_in, read_answers, read_variables
from api.links import add_links

PROBLEM = "application/problem+json"
SCOPES = "x-required-scopes"
Document = dict[str, Any]

_TEXT, _NUMBER = {"type": "string"}, {"type": "integer"}
HEADERS: dict[str, tuple[dict[str, str], str]] = {
    "X-Request-Id": (_TEXT, "The request's id, yours where you sent one: it finds the request in our log."),
    "RateLimit-Limit": (_NUMBER, "Requests that the key may make in a window, where the operator limits them."),
    "RateLimit-Remaining": (_NUMBER, "Requests that are left."),
    "RateLimit-Reset": (_NUMBER, "Seconds until all are."),
    "Retry-After": (_NUMBER, "Seconds to wait before the request may be sent again, where waiting helps."),
    "WWW-Authenticate": (_TEXT, "`Bearer`."),
    "Allow": (_TEXT, "The methods that the path knows."),
    "Location": (_TEXT, "The path of what was made."),
    "ETag": (_TEXT, "Changes whenever the content does."),
    "Repr-Digest": (_TEXT, "`sha-256=:base64:` of the whole file (RFC 9530)."),
    "Content-Range": (_TEXT, "Which bytes of how many."),
}
_BY_STATUS = {
    "401": ["WWW-Authenticate"],
    "405": ["Allow"],
    "409": ["Retry-After"],
    "429": ["Retry-After"],
    "503": ["Retry-After"],
}
_BY_OPERATION: dict[tuple[str, str], list[str]] = {
    ("create_job", "201"): ["Location"],
    ("fork_job", "201"): ["Location"],
    ("retrieve_job", "200"): ["ETag"],
    ("retrieve_job", "304"): ["ETag"],
    ("update_job", "200"): ["ETag"],
    ("retrieve_file_content", "200"): ["ETag"],
    ("retrieve_file_content", "206"): ["ETag", "Content-Range"],
    ("download_checkpoint_file", "200"): ["ETag", "Repr-Digest"],
    ("download_checkpoint_file", "206"): ["ETag", "Repr-Digest", "Content-Range"],
    ("download_checkpoint_file", "304"): ["ETag", "Repr-Digest"],
}


def complete_document(app: FastAPI, document: Document) -> Document:
    """The same document, completed in place; doing it twice changes nothing."""
    scopes = {route.operation_id or route.name: sorted(_scopes(route.dependant)) for route in _routes(app)}
    examples = {example.operation: example for example in EXAMPLES}
    document["components"]["headers"] = {
        name: {"schema": schema, "description": text} for name, (schema, text) in HEADERS.items()
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            operation[SCOPES] = scopes[operation["operationId"]]
            _complete_parameters(operation)
            for status, response in operation["responses"].items():
                if "$ref" not in response:
                    _name_headers(operation, status, response)
                    operation["responses"][status] = _complete_refusal(document, status, response)
            if operation["operationId"] in examples:
                _add_example(operation, examples[operation["operationId"]])
    add_links(document)
    return document


def _complete_parameters(operation: Document) -> None:
    """A URL and a header hold text: what is left out is not `null`."""
    for parameter in operation.get("parameters", []):
        schema = parameter["schema"]
        if "anyOf" in schema:
            kept = [each for each in schema.pop("anyOf") if each != {"type": "null"}]
            schema.update(kept[0] if len(kept) == 1 else {"anyOf": kept})


def _name_headers(operation: Document, status: str, response: Document) -> None:
    names = ["X-Request-Id", *_BY_STATUS.get(status, []), *_BY_OPERATION.get((operation["operationId"], status), [])]
    if operation[SCOPES] or status >= "400":
        names += [name for name in HEADERS if name.startswith("RateLimit")]
    response["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _complete_refusal(document: Document, status: str, response: Document) -> Document:
    """A reference to the refusal that most operations have in common; what says more than usual stays in place."""
    content = response.get("content", {})
    if content.get("application/json") != {"schema": {"$ref": "#/components/schemas/Problem"}}:
        return response
    response["content"] = {PROBLEM: content["application/json"]}
    phrase = HTTPStatus(int(status)).phrase
    if response["description"] != phrase:
        return response
    name = "".join(word.capitalize() for word in re.findall(r"[A-Za-z]+", phrase))
    document["components"].setdefault("responses", {}).setdefault(name, response)
    return {"$ref": f"#/components/responses/{name}"}


def _add_example(operation: Document, example: Example) -> None:
    variables = read_variables()
    given = fill_in({**example.headers, **example.query, **example.path}, variables)
    for parameter in operation.get("parameters", []):
        if parameter["name"] in given:
            parameter["example"] = _typed(given[parameter["name"]], parameter["schema"])
    content = operation.get("requestBody", {}).get("content", {})
    if example.body is not None:
        content["application/json"]["example"] = fill_in(example.body, variables)
    if example.file is not None:
        line = '{"prompt": "1+1=", "answer": "2"}\n'
        content["multipart/form-data"]["example"] = {"file": line, "purpose": "fine-tune"}
    answer = read_answers().get(operation["operationId"])
    if answer is not None and answer.body is not None:
        media = operation["responses"][str(answer.status)].setdefault("content", {})
        media.setdefault(answer.media_type, {})["example"] = answer.body


def _typed(text: str, schema: Document) -> Any:
    kind = schema.get("type")
    if kind == "boolean":
        return text == "true"
    return int(text) if kind == "integer" else float(text) if kind == "number" else text


def _routes(app: FastAPI) -> Iterator[APIRoute]:
    return (route for route in app.routes if isinstance(route, APIRoute))


def _scopes(dependant: Dependant) -> set[str]:
    own = set(getattr(dependant.call, "scopes", ()))
    return own.union(*(_scopes(each) for each in dependant.dependencies))
