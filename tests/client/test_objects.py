from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NotRequired, get_origin, get_type_hints

import pytest

from api.examples import EXAMPLES, read_answers
from client import objects
from client.generate import DOCUMENT, OBJECTS, annotation, answer_of, render
from client.http import Client

AGAIN = "the wire has changed: run `python -m client.generate`"
STREAMS = {"stream_metrics", "stream_events", "stream_log", "stream_completion"}
NO_ANSWER = {"close", "download_checkpoint", "all_files", "all_checkpoints", *STREAMS}
"""What gives back no answer of the service but a folder, a stream, the items of many pages or nothing."""


class Asked(Exception):
    """Carries the request that a method was about to make."""


class Silent(Client):
    """A client that asks nobody and tells what it would have asked."""

    def _call(self, method: str, path: str, *, retry: bool = True, **request: Any) -> Any:
        raise Asked(method.lower(), path)


def read_document() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DOCUMENT.read_text(encoding="utf-8"))
    return document


def methods() -> list[str]:
    public = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    return sorted(public - NO_ANSWER)


def asked_by(method: Callable[..., Any], path: Path) -> tuple[str, str]:
    """The request of a method that is called with what it cannot do without."""
    anything = {"str": "x", "Path": path, "bool": True, "list[str]": ["x"], "Mapping[str, Any]": {}}
    needed = [each for each in inspect.signature(method).parameters.values() if each.default is each.empty]
    values = {each.name: anything[each.annotation] for each in needed if each.kind is not each.VAR_KEYWORD}
    with pytest.raises(Asked) as asked:
        method(**values)
    verb, asked_path = asked.value.args
    return verb, asked_path


def operation_of(verb: str, path: str) -> dict[str, Any]:
    """The document's operation for a request; a path without a parameter comes before one that has it."""
    for template, operations in sorted(read_document()["paths"].items(), key=lambda item: item[0].count("{")):
        if verb in operations and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path):
            operation: dict[str, Any] = operations[verb]
            return operation
    raise AssertionError(f"no operation for {verb} {path}")


def test_the_types_are_the_documents() -> None:
    assert OBJECTS.read_text(encoding="utf-8") == render(read_document()), AGAIN


@pytest.mark.parametrize("name", methods())
def test_a_method_gives_back_what_its_operation_answers(name: str, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("{}")
    with Silent("http://127.0.0.1:1", "k") as client:
        method = getattr(client, name)
        operation = operation_of(*asked_by(method, file))
    told = str(inspect.signature(method).return_annotation).replace("objects.", "")
    # A dry run shares its operation with the job that it would make.
    assert told in annotation(answer_of(operation)).split(" | ")


def misfits(answer: dict[str, Any], kind: type) -> set[str]:
    """The fields that a type has and an answer lacks, or the other way round."""
    fields = get_type_hints(kind, include_extras=True)
    needed = {name for name, each in fields.items() if get_origin(each) is not NotRequired}
    return (answer.keys() - fields.keys()) | (needed - answer.keys())


def kept_answers() -> dict[str, tuple[str, Any]]:
    """The service's own answers to the documentation's examples, with the type that the document gives each."""
    operations = {each["operationId"]: each for paths in read_document()["paths"].values() for each in paths.values()}
    answers = {example.operation: read_answers().get(example.operation) for example in EXAMPLES}
    return {
        name: (annotation(answer_of(operations[name])).split(" | ")[0], answer.body)
        for name, answer in answers.items()
        if answer is not None and isinstance(answer.body, dict) and answer_of(operations[name])
    }


@pytest.mark.parametrize("name", sorted(kept_answers()))
def test_a_real_answer_has_the_fields_of_its_type(name: str) -> None:
    written, answer = kept_answers()[name]
    item = written.removeprefix("Page[").removesuffix("]")
    if item != written:
        assert answer["data"], "the example shows an empty list"
        assert misfits(answer, objects.Page) == set()
    for each in answer["data"] if item != written else [answer]:
        assert misfits(each, getattr(objects, item)) == set()


def test_a_field_is_typed_by_the_documents_words() -> None:
    cases: dict[str, Any] = {
        "str": {"type": "string"},
        "int | None": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        'Literal["a", "b"]': {"enum": ["a", "b"], "type": "string"},
        'Literal["list"]': {"const": "list", "default": "list", "type": "string"},
        "list[Plane]": {"type": "array", "items": {"$ref": "#/components/schemas/Plane"}},
        "Page[JobObject]": {"$ref": "#/components/schemas/ListOf_JobObject_"},
        "dict[str, float | None]": {
            "type": "object",
            "additionalProperties": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        },
        "dict[str, Any]": {"type": "object", "additionalProperties": True},
        "Any": {},
    }
    assert {annotation(schema): schema for schema in cases.values()} == cases


def test_a_field_that_may_be_left_out_says_so() -> None:
    fields = get_type_hints(objects.JobError, include_extras=True)
    assert get_origin(fields["stage"]) is NotRequired
    assert get_origin(fields["code"]) is None
