from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from openapi_spec_validator import OpenAPIV31SpecValidator

from api.document import PROBLEM, SCOPES
from api.reference import DOCS, dump, read_document, render
from tests.api.operations import PUBLIC, document

BYTES = {"retrieve_file_content", "download_checkpoint_file", "download_checkpoint_archive"}
"""What answers with a file's bytes shows no example of them."""
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


def test_the_document_is_openapi_3_1() -> None:
    for each in (document(), read_document()):
        assert each["openapi"].startswith("3.1.")
        OpenAPIV31SpecValidator(each).validate()


def test_every_operation_shows_a_request_and_an_answer() -> None:
    for methods in document()["paths"].values():
        for operation in methods.values():
            name = operation["operationId"]
            asked = [each for each in operation.get("parameters", []) if each.get("required")]
            assert [each["name"] for each in asked if "example" not in each] == [], name
            bodies = operation.get("requestBody", {}).get("content", {}).values()
            assert all("example" in each for each in bodies), name
            answers = [each for status, each in operation["responses"].items() if status < "400"]
            shown = [media for each in answers for media in each.get("content", {}).values() if "example" in media]
            assert shown or name in BYTES, name


def test_every_answer_names_its_header_fields_and_every_refusal_its_own() -> None:
    whole = document()
    for methods in whole["paths"].values():
        for operation in methods.values():
            for status, response in operation["responses"].items():
                place = response.get("$ref", "").rpartition("/")[2]
                named = (whole["components"]["responses"][place] if place else response)["headers"]
                wanted = {"401": "WWW-Authenticate", "405": "Allow", "429": "Retry-After"}.get(status, "X-Request-Id")
                assert {wanted, "X-Request-Id"} <= set(named), (operation["operationId"], status)


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
