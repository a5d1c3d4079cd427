from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from api.document import PROBLEM, SCOPES
from api.reference import DOCS, dump, read_document, render
from tests.api.operations import PUBLIC, document

AGAIN = "the wire has changed: look at the difference, then run `python -m api.reference`"


def test_the_document_is_the_one_that_is_kept() -> None:
    assert (DOCS / "openapi.json").read_text() == dump(read_document()), AGAIN


def test_the_page_is_the_documents() -> None:
    assert (DOCS / "api.md").read_text() == render(read_document()), AGAIN


def test_every_operation_is_told_in_full() -> None:
    for methods in document()["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            assert operation["summary"], name
            assert operation["description"].rstrip().endswith((".", ":")), name
            assert {"401", "403", "404", "422", "429", "500", "503"} <= set(operation["responses"]), name
            assert bool(operation[SCOPES]) == (name not in PUBLIC), name
            silent = [each["name"] for each in operation.get("parameters", []) if each["in"] != "path"]
            told = [each["name"] for each in operation.get("parameters", []) if each.get("description")]
            assert [each for each in silent if each not in told] == [], name


def test_every_refusal_is_a_problem() -> None:
    refusals = document()["components"]["responses"]
    assert len(refusals) > 8
    for refusal in refusals.values():
        assert refusal["content"] == {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}


def test_every_reference_leads_somewhere() -> None:
    whole = document()
    found = set(references(whole))
    assert len(found) > 50
    for reference in found:
        place: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
        assert place, reference


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
