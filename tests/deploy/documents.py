"""The deployment's files, parsed: what the rules in this folder look at. Each call reads anew; a test may alter it."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"

Document = dict[str, Any]


class _Loader(yaml.SafeLoader):
    """YAML as compose reads it: `!reset` in a second file takes a value of the first one away."""


class Reset:
    """The value of `!reset`."""


_Loader.add_constructor("!reset", lambda loader, node: Reset())


def read_compose() -> Document:
    return _mapping(yaml.load((ROOT / "docker-compose.yml").read_text(), _Loader))  # noqa: S506  # a SafeLoader


def read_cpu_compose() -> Document:
    """The compose file as it stands on a machine without a GPU: with deploy/compose.cpu.yml laid over it."""
    return _laid_over("compose.cpu.yml")


def read_judges_compose() -> Document:
    """The compose file as it stands where models may be asked for scores."""
    return _laid_over("compose.judges.yml")


def read_kubernetes() -> list[Document]:
    """All objects that the kustomization lists, in its order."""
    names = read_kustomization()["resources"]
    return [_mapping(d) for n in names for d in yaml.safe_load_all((DEPLOY / "kubernetes" / n).read_text())]


def read_kustomization() -> Document:
    return _mapping(yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text()))


def read_env_example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def read_version() -> str:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert isinstance(version, str)
    return version


@dataclass
class Stage:
    """One stage of a Dockerfile: its name, what it starts from, and its instructions in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def arguments(self, keyword: str) -> list[str]:
        return [argument for word, argument in self.instructions if word == keyword]


def read_dockerfile() -> dict[str, Stage]:
    """The stages by name; what stands before the first FROM is the stage `""`."""
    return parse_dockerfile((DEPLOY / "Dockerfile").read_text())


def parse_dockerfile(text: str) -> dict[str, Stage]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    stages = {"": Stage("", "")}
    current = stages[""]
    for line in whole.splitlines():
        keyword, argument = line.split(maxsplit=1)
        if keyword == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", argument).groups()  # type: ignore[union-attr]
            current = stages[name] = Stage(name, base)
        else:
            current.instructions.append((keyword, argument.strip()))
    return stages


def lineage(stages: dict[str, Stage], name: str) -> list[Stage]:
    """The stage and those it starts from, nearest first."""
    chain = []
    while name in stages:
        chain.append(stages[name])
        name = stages[name].base
    return chain


def exec_form(argument: str) -> list[str]:
    """The words of `["a", "b"]`, as CMD, ENTRYPOINT and HEALTHCHECK … CMD write them."""
    words = json.loads(argument[argument.index("[") :])
    assert isinstance(words, list)
    return words


def _mapping(value: Any) -> Document:
    assert isinstance(value, dict)
    return value


def _laid_over(name: str) -> Document:
    return _overlaid(read_compose(), _mapping(yaml.load((DEPLOY / name).read_text(), _Loader)))  # noqa: S506


def _overlaid(base: Document, over: Document) -> Document:
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, Reset):
            merged.pop(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = _overlaid(merged[key], value)
        elif isinstance(value, list) and isinstance(merged.get(key), list):
            merged[key] = merged[key] + value
        else:
            merged[key] = value
    return merged
