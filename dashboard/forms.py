"""The settings of a job as fields of a form, read from the config's own definition. Pure: no Streamlit, no HTTP.

A field's sentence, bounds and default are the config's; none is written a second time here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from stapo_core.config import Algorithm, Grader, TrainConfig
from stapo_core.presets import PRESETS

JsonObject = dict[str, Any]
Kind = Literal["integer", "number", "string", "boolean", "choice"]


@dataclass(frozen=True)
class Setting:
    """One field: what it takes, what it is when left alone, and its sentence."""

    name: str
    kind: Kind
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    """The least value, or the bound that it must lie above; the service tells which."""
    maximum: float | None = None


@dataclass(frozen=True)
class Variant:
    """One algorithm or grader: its name, its sentence and its fields."""

    name: str
    help: str
    settings: tuple[Setting, ...]
    is_optional: bool = False
    """A group that may be left out altogether."""


@cache
def algorithms() -> dict[str, Variant]:
    """Every algorithm a job can choose, by name."""
    return _variants(TypeAdapter(Algorithm).json_schema(), "kind")


@cache
def graders() -> dict[str, Variant]:
    """Every grader a job can choose, by name."""
    return _variants(TypeAdapter(Grader).json_schema(), "type")


@cache
def sections() -> dict[str, Variant]:
    """The groups of training settings beside the algorithm; the key "" holds those without a group."""
    schema = TrainConfig.model_json_schema()
    loose = [setting for setting in _settings(schema) if setting.name != "algorithm"]
    groups = {"": Variant("", "", tuple(loose))}
    for name, field in schema["properties"].items():
        kind = _kinds(field)[0]
        if "$ref" in kind:
            definition = _resolve(kind["$ref"], schema)
            groups[name] = Variant(name, definition.get("description", ""), _settings(definition), "anyOf" in field)
    return groups


def presets() -> list[str]:
    """The named settings that a form can begin with."""
    return list(PRESETS)


def preset(name: str | None) -> JsonObject:
    """Every value of named settings, as plain data; none for no name."""
    return PRESETS[name].model_dump(mode="json") if name in PRESETS else {}


def changed(values: Mapping[str, Any], variant: Variant) -> JsonObject:
    """The values that differ from their defaults: what must be said for the rest to stay as it is."""
    return {each.name: values[each.name] for each in variant.settings if values.get(each.name) != each.default}


def job_body(
    *, model: str, files: Mapping[str, str | None], grader: JsonObject, config: JsonObject, name: str = ""
) -> JsonObject:
    """The request that creates a job; `files` are ids by their field's name, and those that are None are left out."""
    body: JsonObject = {"model": model, **{param: file for param, file in files.items() if file}}
    if name:
        body["suffix"] = name
    return body | {"method": {"type": "reinforcement", "reinforcement": {"grader": grader, "config": config}}}


def as_curl(body: JsonObject, api_url: str) -> str:
    """The same request for a shell; the key is read from the environment."""
    text = json.dumps(body, indent=2, ensure_ascii=False).replace("'", "'\\''")
    return (
        f"curl {api_url}/v1/fine_tuning/jobs \\\n"
        '  -H "Authorization: Bearer $STAPO_API_KEY" \\\n'
        '  -H "Content-Type: application/json" \\\n'
        f"  -d '{text}'"
    )


def as_python(body: JsonObject, api_url: str) -> str:
    """The same request with the official client of the dialect."""
    arguments = "".join(f"    {name}={value!r},\n" for name, value in body.items())
    return (
        "import os\nfrom openai import OpenAI\n\n"
        f'client = OpenAI(base_url="{api_url}/v1", api_key=os.environ["STAPO_API_KEY"])\n'
        f"job = client.fine_tuning.jobs.create(\n{arguments})\n"
    )


# --- reading a schema ---------------------------------------------------------------------------------------------


_SCALARS = frozenset({"integer", "number", "string", "boolean"})


def _variants(schema: JsonObject, tag: str) -> dict[str, Variant]:
    """Those whose required fields a form can ask for."""
    variants = {}
    for name, reference in schema["discriminator"]["mapping"].items():
        definition = _resolve(reference, schema)
        settings = _settings(definition)
        if {*definition.get("required", [])} <= {tag, *(setting.name for setting in settings)}:
            shown = tuple(each for each in settings if each.name not in (tag, "name"))
            variants[name] = Variant(name, definition.get("description", ""), shown)
    return variants


def _resolve(reference: str, schema: JsonObject) -> JsonObject:
    definition: JsonObject = schema["$defs"][reference.rpartition("/")[2]]
    return definition


def _settings(definition: JsonObject) -> tuple[Setting, ...]:
    """The fields that hold one plain value; lists and groups are not asked for and keep their defaults."""
    required = definition.get("required", [])
    fields = definition["properties"].items()
    plain = [(name, field) for name, field in fields if _kinds(field)[0].get("type") in _SCALARS]
    return tuple(_setting(name, field, is_required=name in required) for name, field in plain)


def _kinds(field: JsonObject) -> list[JsonObject]:
    """What a field may hold beside null."""
    return [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]


def _setting(name: str, field: JsonObject, *, is_required: bool) -> Setting:
    kind = _kinds(field)[0]
    choices = tuple(str(choice) for choice in kind.get("enum", []))
    return Setting(
        name=name,
        kind="choice" if choices else kind["type"],
        default=choices[0] if is_required and choices else field.get("default"),
        help=field.get("description", ""),
        choices=choices,
        minimum=kind.get("minimum", kind.get("exclusiveMinimum")),
        maximum=kind.get("maximum", kind.get("exclusiveMaximum")),
    )
