"""Which operation's answer names what others are called with: OpenAPI's links, by rule. Pure."""

from __future__ import annotations

from typing import Any

SOURCES: dict[str, tuple[str, dict[str, str]]] = {
    "create_file": ("200", {"file_id": "$response.body#/id"}),
    "list_files": ("200", {"file_id": "$response.body#/data/0/id"}),
    "list_models": ("200", {"model": "$response.body#/data/0/id"}),
    "create_job": ("201", {"job_id": "$response.body#/id"}),
    "fork_job": ("201", {"job_id": "$response.body#/id"}),
    "list_jobs": ("200", {"job_id": "$response.body#/data/0/id"}),
    "retrieve_job": ("200", {"job_id": "$request.path.job_id", "model": "$response.body#/fine_tuned_model"}),
    "list_rollouts": ("200", {"job_id": "$request.path.job_id", "rollout_id": "$response.body#/data/0/id"}),
    "list_job_checkpoints": (
        "200",
        {"checkpoint_id": "$response.body#/data/0/id", "path": "$response.body#/data/0/files/0/path"},
    ),
    "create_api_key": ("201", {"key_id": "$response.body#/id"}),
    "list_api_keys": ("200", {"key_id": "$response.body#/data/0/id"}),
}
"""The operation, the status of its answer, and the path parameters that the answer gives a value."""


def add_links(document: dict[str, Any]) -> None:
    """Adds to each source a link to every operation all of whose path parameters it gives, itself left out."""
    operations = {op["operationId"]: (path, op) for path, ops in document["paths"].items() for op in ops.values()}
    for source, (status, given) in SOURCES.items():
        links = operations[source][1]["responses"][status].setdefault("links", {})
        for target, (_, operation) in operations.items():
            wanted = {each["name"] for each in operation.get("parameters", []) if each["in"] == "path"}
            gives_more = wanted - _inherited(given)
            if target != source and gives_more and wanted <= set(given):
                links[target] = {"operationId": target, "parameters": {name: given[name] for name in sorted(wanted)}}


def _inherited(given: dict[str, str]) -> set[str]:
    """The parameters that the source itself was called with: alone they lead nowhere new."""
    return {name for name, place in given.items() if place.startswith("$request")}
