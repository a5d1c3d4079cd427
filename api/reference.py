"""`python -m api.reference`: writes docs/openapi.json and docs/api.md from the service itself.

What a training config and a grader may hold is left out of both: `stapo_core.config` says it, `/openapi.json` shows it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from api.document import SCOPES
from api.examples import EXAMPLES, Answer, Example, read_answers
from api.main import create_app
from api.settings import Settings
from stapo_core import config

DOCS = Path(__file__).resolve().parents[1] / "docs"
REFUSED = "400"
MAX_ANSWER_LINES = 40
INTRODUCTION = """# The API

Written by `python -m api.reference` from the service's own OpenAPI document; `GET /openapi.json` of a running service
holds the same, and the fields of a training config besides.

Send an API key as `Authorization: Bearer <key>`. A key reaches as far as its scopes. Times are seconds since the
epoch. Every refusal is a problem (RFC 9457) with a stable `code`, a sentence with the remedy, and the dialect's `error`
member beside it. A POST that creates takes an `Idempotency-Key`. Lists are paged by `after` and `limit`.

In the examples `$STAPO` is the address of a service, `$STAPO_API_KEY` a key, and another `$NAME` the id of what an
example before has made. In Python `client` is the official client of the dialect, and `stapo` is ours, for what that
one lacks. All of them are run in the tests; answers are shown with ids, times and digests made constant.

```python
import os
from pathlib import Path

from openai import OpenAI

from client.http import Client

client = OpenAI(base_url=os.environ["STAPO"] + "/v1", api_key=os.environ["STAPO_API_KEY"])
stapo = Client(os.environ["STAPO"], os.environ["STAPO_API_KEY"])
```
"""

Document = dict[str, Any]
_EXAMPLES = {example.operation: example for example in EXAMPLES}


def read_document() -> Document:
    """The OpenAPI document, the same on every machine, without the config's schemas."""
    app = create_app(Settings(home=Path("unused"), database_url="unused://", broker_url="unused://"))
    document: Document = json.loads(json.dumps(app.openapi()))
    schemas = document["components"]["schemas"]
    document["components"]["schemas"] = {name: schemas[name] for name in schemas if name not in config.__all__}
    completed: Document = _without_config(document)
    return completed


def _without_config(value: Any) -> Any:
    """The same, with an object in place of each reference to the config or to one of its unions."""
    if isinstance(value, list):
        return [_without_config(each) for each in value]
    if not isinstance(value, dict):
        return value
    if any(str(value.get("$ref", "")).endswith(f"/{name}") for name in config.__all__):
        return {"type": "object"}
    if "discriminator" in value:
        kept = {key: each for key, each in value.items() if key not in ("discriminator", "oneOf")}
        return kept | {"type": "object"}
    return {key: _without_config(each) for key, each in value.items()}


def render(document: Document) -> str:
    """The document as a page."""
    tags: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tags.setdefault(operation["tags"][-1], []).append(_operation(method, path, operation))
    parts = [INTRODUCTION]
    for tag, operations in tags.items():
        parts += [f"## {tag}\n", *operations]
    parts.append("## Objects\n")
    parts += [_object(name, schema) for name, schema in sorted(document["components"]["schemas"].items())]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def main() -> None:
    """Writes both files."""
    document = read_document()
    DOCS.mkdir(exist_ok=True)
    (DOCS / "openapi.json").write_text(dump(document))
    (DOCS / "api.md").write_text(render(document))


def dump(document: Document) -> str:
    """The document as it is kept."""
    return json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def _operation(method: str, path: str, operation: Document) -> str:
    scopes = ", ".join(f"`{scope}`" for scope in operation[SCOPES]) or "no key"
    lines = [f"### {operation['summary']}\n", f"`{method.upper()} {path}` · {operation['operationId']} · {scopes}\n"]
    if operation.get("description"):
        lines.append(operation["description"] + "\n")
    asked = [each for each in operation.get("parameters", []) if each["in"] != "path"]
    if asked:
        lines += ["| parameter | in | type | |", "|---|---|---|---|"]
        lines += [f"| `{each['name']}` | {each['in']} | {_type(each['schema'])} | {_text(each)} |" for each in asked]
        lines.append("")
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        lines.append(f"Body ({media}): {_type(content['schema'])}\n")
    lines.append("Answers: " + "; ".join(_answers(operation["responses"])) + ".\n")
    example = _EXAMPLES.get(operation["operationId"])
    return "\n".join(lines) + ("\n".join(["", *_example(method, path, operation, example)]) if example else "")


def _example(method: str, path: str, operation: Document, example: Example) -> Iterator[str]:
    yield f"```sh\n{render_curl(method, path, example, is_public=not operation[SCOPES])}\n```\n"
    if example.python:
        yield f"```python\n{example.python}\n```\n"
    answer = read_answers().get(example.operation)
    if answer is not None and answer.body is not None:
        yield _shown(answer)


def render_curl(method: str, path: str, example: Example, *, is_public: bool) -> str:
    """The example as a command for a shell."""
    for name, value in example.path.items():
        path = path.replace("{" + name + "}", value)
    query = "&".join(f"{name}={value}" for name, value in example.query.items())
    parts = [f'curl "$STAPO{path}{"?" + query if query else ""}"']
    if (method != "get" and example.body is None and example.file is None) or method == "patch":
        parts[0] += f" -X {method.upper()}"
    headers = example.headers if is_public else {"Authorization": "Bearer $STAPO_API_KEY", **example.headers}
    parts += [f'-H "{name}: {value}"' for name, value in headers.items()]
    if example.file is not None:
        parts.append(f"-F purpose=fine-tune -F file=@{example.file}")
    if example.body is not None:
        parts.append(f"--json @- <<END\n{json.dumps(example.body, indent=2)}\nEND")
    return " \\\n  ".join(parts)


def _shown(answer: Answer) -> str:
    """The answer, the middle of a long one left out."""
    is_text = isinstance(answer.body, str)
    lines = (answer.body.rstrip() if is_text else json.dumps(answer.body, indent=2, ensure_ascii=False)).splitlines()
    if len(lines) > MAX_ANSWER_LINES:
        lines = [*lines[: MAX_ANSWER_LINES - 6], "  …", *lines[-5:]]
    return "\n".join([f"`{answer.status}`\n", "```text" if is_text else "```json", *lines, "```\n"])


def _answers(responses: Document) -> Iterator[str]:
    for status, response in sorted(responses.items()):
        if status < REFUSED:
            shapes = [
                _type(content["schema"]) for content in response.get("content", {}).values() if "schema" in content
            ]
            told = shapes or [response["description"].lower()]
            yield f"{status} {' or '.join(told)}"


def _object(name: str, schema: Document) -> str:
    if "properties" not in schema or name.startswith("Body_"):
        return ""
    lines = [f"### {name}\n", schema.get("description", "") + "\n", "| field | type | |", "|---|---|---|"]
    lines += [f"| `{field}` | {_type(each)} | {_text(each)} |" for field, each in schema["properties"].items()]
    return "\n".join(lines) + "\n"


def _type(schema: Document) -> str:
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _text(schema: Document) -> str:
    return " ".join(str(schema.get("description", "")).split()).replace("|", "\\|")


if __name__ == "__main__":
    main()
