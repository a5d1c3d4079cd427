"""Runs the examples of docs/api.md against a service, and makes its answers constant.

`python -m tests.api.examples` writes api/examples.json anew from a service of its own, then the documents.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from string import Template
from typing import Any

import httpx2
import pytest

from api import reference
from api.examples import EXAMPLES

KEEP = "STAPO_KEEP_ANSWERS"
"""Set by the command above: what is answered is written down."""
_OPERATION = re.compile(r"^`[A-Z]+ /\S*` · (\w+) · ", re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SAMPLE_BYTES = ("application/octet-stream", "application/x-tar", "application/jsonl")


def blocks_of(page: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Each operation of the page and its blocks by language, in the order in which they can be run."""
    starts = list(_OPERATION.finditer(page))
    ends = [match.start() for match in starts[1:]] + [len(page)]
    found = {
        match[1]: {block[1]: block[2] for block in _BLOCK.finditer(page[match.end() : end])}
        for match, end in zip(starts, ends, strict=True)
    }
    return ((example.operation, found[example.operation]) for example in EXAMPLES)


def run_curl(command: str, variables: dict[str, str], folder: Path) -> httpx2.Response:
    """Does what curl would: the options that the page uses, and no other."""
    head, _, document = Template(command).substitute(variables).partition("<<END\n")
    words = iter(shlex.split(head.replace("\\\n", ""))[1:])
    request: dict[str, Any] = {"method": None, "url": next(words), "headers": {}, "data": {}, "files": {}}
    for word in words:
        value = next(words)
        match word:
            case "-X":
                request["method"] = value
            case "-H":
                name, _, text = value.partition(": ")
                request["headers"][name] = text
            case "-F" if "=@" in value:
                name, _, path = value.partition("=@")
                request["files"][name] = (path, (folder / path).read_bytes())
            case "-F":
                name, _, text = value.partition("=")
                request["data"][name] = text
            case "--json":
                request["headers"]["Content-Type"] = "application/json"
                request["content"] = document.partition("\nEND")[0].encode()
            case _:
                raise AssertionError(f"curl's {word} is not understood here")
    has_body = "content" in request or request["files"]
    request["method"] = request["method"] or ("POST" if has_body else "GET")
    return httpx2.request(**{name: value for name, value in request.items() if value}, timeout=30.0)


def keep(answer: httpx2.Response, constant: Callable[[Any], Any]) -> dict[str, Any]:
    """The answer as api/examples.json holds it."""
    media_type = answer.headers.get("content-type", "").partition(";")[0]
    body: Any = answer.text
    if media_type.endswith("json"):
        body = answer.json()
    elif media_type in _SAMPLE_BYTES:
        body = None
    elif media_type == "text/plain":  # of Prometheus's text, the part that is short
        body = "".join(line for line in body.splitlines(keepends=True) if "stapo_jobs" in line)
    return {"status": answer.status_code, "media_type": media_type, "body": constant(body)}


class Constant:
    """Replaces what differs from run to run: ids, digests, times, secrets; and the config, which is told elsewhere."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            if name == "config":
                value = {key: value[key] for key in ("algorithm", "num_steps") if key in value}
            if name == "algorithm":
                value = {"kind": value["kind"]}
            return {key: self(each, key) for key, each in value.items()}
        if isinstance(value, list):
            return [self(each) for each in value]
        if isinstance(value, str):
            return self._text(value, name)
        return _number(value, name)

    def _text(self, value: str, name: str) -> str:
        fixed = {"key": "stapo_shown-this-once", "prefix": "stapo_1a2b3c", "ticket": "ticket-for-an-hour"}
        if name in fixed:
            return fixed[name]
        value = re.sub(r"\b(?:[0-9a-f]{64}|[0-9a-f]{32})\b", self._hex, value)
        return re.sub(r'("created(?:_at)?":)[0-9.]+', r"\g<1>1767225600", value)

    def _hex(self, found: re.Match[str]) -> str:
        width = len(found[0])
        same = sum(1 for known in self._known.values() if len(known) == width)
        return self._known.setdefault(found[0], f"{same + 1:0{width}x}")


def _number(value: Any, name: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if name.endswith("_at") or name in ("created", "estimated_finish"):
        return 1767225600
    return 0.001 if name in ("execution_time", "running_s", "latency_p50_s", "latency_p95_s") else value


def main() -> int:
    """Asks a service of its own, then writes the documents."""
    os.environ[KEEP] = "1"
    code = int(pytest.main(["tests/api/test_examples.py", "-k", "command"]))
    reference.main()
    return code


if __name__ == "__main__":
    sys.exit(main())
