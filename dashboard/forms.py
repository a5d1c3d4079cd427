"""The settings of a job as fields of a form, read from the config's own definition. Pure: no Streamlit, no HTTP.

A field's sentence, bounds and default are the config's; none is written a second time here. Lists and objects are
asked for as JSON.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter

from stapo_core.config import Algorithm, Grader, TrainConfig
from stapo_core.presets import PRESETS

JsonObject = dict[str, Any]
Kind = Literal["integer", "number", "string", "boolean", "choice", "json"]
_ANSWER = "{{item.answer}}"
_BEGUN: dict[tuple[str, str], Any] = {
    ("format", "tags"): ["think", "answer"],
    ("json_schema", "json_schema"): {"type": "object", "required": ["answer"]},
    ("multi", "graders"): {
        "right": {"type": "numeric", "reference": _ANSWER},
        "short": {"type": "length", "max_length": 200},
    },
    ("length", "max_length"): 200,
    ("multi", "calculate_output"): "0.8 * right + 0.2 * short",
    ("python", "source"): (
        "def grade(sample, item):\n    return float(sample['output_text'].strip() == item['answer'])\n"
    ),
    ("regex", "pattern"): r"\d+",
    ("score_model", "model"): "judge",
    ("score_model", "input"): [
        {"role": "user", "content": "From 0 to 1, how good is this answer?\n\n{{sample.output_text}}"}
    ],
}
"""What a required field begins with, by variant and field; every other one names the answer of the row."""


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
    is_required: bool = False
    """Its default is only what a form begins with."""


@dataclass(frozen=True)
class Variant:
    """One algorithm or grader: its name, its sentence and its fields."""

    name: str
    help: str
    settings: tuple[Setting, ...]
    is_optional: bool = False
    """A group that may be left out altogether."""

    @property
    def required(self) -> set[str]:
        """The fields that a request must name, the choices among them, which have no empty value."""
        return {each.name for each in self.settings if each.is_required or each.choices}


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
    groups = {"": Variant("", "", _settings(schema))}
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


def said(values: Mapping[str, Any], variant: Variant) -> JsonObject:
    """What was changed, and what must be named in any case."""
    return changed(values, variant) | {name: values[name] for name in variant.required}


def parsed(text: str) -> Any:
    """The value of a field that is written as JSON; None for no text. Raises ValueError with line and column."""
    return json.loads(text) if text.strip() else None


def written(value: Any) -> str:
    """A value as such a field shows it."""
    return "" if value is None else json.dumps(value, indent=2, ensure_ascii=False)


def step_of(value: float | None) -> float:
    """How far one click on + or - goes from a number: a tenth of its magnitude, so that 1e-6 becomes 1.1e-6."""
    return float(f"1e{math.floor(math.log10(abs(value))) - 1}") if value else 0.01


def job_body(
    *,
    model: str,
    files: Mapping[str, str | None],
    grader: JsonObject,
    config: JsonObject,
    name: str = "",
    seed: int | None = None,
) -> JsonObject:
    """The request that creates a job; `files` are ids by their field's name, and what is None is left out."""
    told = {"model": model, **files, "suffix": name or None, "seed": seed}
    body = {param: value for param, value in told.items() if value is not None}
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
_WRITTEN = frozenset({"array", "object"})


def _variants(schema: JsonObject, tag: str) -> dict[str, Variant]:
    """Every variant by its name; of its fields its own come first, and those that most variants have last."""
    definitions = {name: _resolve(ref, schema) for name, ref in schema["discriminator"]["mapping"].items()}
    counts = Counter(field for definition in definitions.values() for field in definition["properties"])
    common = {field for field, count in counts.items() if count > len(definitions) / 2}
    variants = {}
    for name, definition in definitions.items():
        shown = [each for each in _settings(definition, name) if each.name not in (tag, "name")]
        shown.sort(key=lambda each: each.name in common and not each.is_required)
        variants[name] = Variant(name, definition.get("description", ""), tuple(shown))
    return variants


def _resolve(reference: str, schema: JsonObject) -> JsonObject:
    definition: JsonObject = schema["$defs"][reference.rpartition("/")[2]]
    return definition


def _settings(definition: JsonObject, variant: str = "") -> tuple[Setting, ...]:
    """The fields that hold one value, a list or an object; groups with fields of their own keep their defaults."""
    required = definition.get("required", [])
    fields = definition["properties"].items()
    shown = [(name, field) for name, field in fields if _kinds(field)[0].get("type") in _SCALARS | _WRITTEN]
    return tuple(_setting(name, field, variant, is_required=name in required) for name, field in shown)


def _kinds(field: JsonObject) -> list[JsonObject]:
    """What a field may hold beside null."""
    return [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]


def _setting(name: str, field: JsonObject, variant: str, *, is_required: bool) -> Setting:
    kind = _kinds(field)[0]
    choices = tuple(str(choice) for choice in kind.get("enum", []))
    begun = choices[0] if choices else _BEGUN.get((variant, name), _ANSWER)
    return Setting(
        name=name,
        kind="choice" if choices else "json" if kind["type"] in _WRITTEN else kind["type"],
        default=begun if is_required else field.get("default"),
        help=field.get("description", ""),
        choices=choices,
        minimum=kind.get("minimum", kind.get("exclusiveMinimum")),
        maximum=kind.get("maximum", kind.get("exclusiveMaximum")),
        is_required=is_required,
    )
