"""The compose file keeps its rules, and each rule refuses a file in which its fault is planted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deploy import compose_rules as rules
from tests.deploy.documents import Document, read_compose, read_cpu_compose, read_judges_compose

Rule = Callable[[Document], list[str]]
Plant = Callable[[Document], object]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_compose_file_keeps_the_rule(rule: Rule) -> None:
    assert rule(read_compose()) == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_compose_file_without_a_gpu_keeps_the_rule(rule: Rule) -> None:
    assert rule(read_cpu_compose()) == []


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_compose_file_with_judges_keeps_the_rule(rule: Rule) -> None:
    assert rule(read_judges_compose()) == []


FAULTS: list[tuple[Rule, str, Plant]] = [
    (rules.names_resolve, "a misspelt network", lambda c: service(c, "api")["networks"].append("backnd")),
    (rules.names_resolve, "an unused volume", lambda c: c["volumes"].update(spare={})),
    (rules.names_resolve, "an undeclared secret", lambda c: c["secrets"].pop("valkey_acl")),
    (
        rules.dependencies_resolve,
        "a service that is not there",
        lambda c: service(c, "api")["depends_on"].update(db={"condition": "service_healthy"}),
    ),
    (rules.dependencies_resolve, "no check to wait for", lambda c: service(c, "valkey").pop("healthcheck")),
    (rules.dependencies_resolve, "an end that never comes", lambda c: service(c, "migrate").update(restart="always")),
    (rules.images_are_built_or_pinned, "a moving tag", lambda c: service(c, "valkey").update(image="valkey/valkey:9")),
    (rules.images_are_built_or_pinned, "a missing stage", lambda c: service(c, "api")["build"].update(target="web")),
    (rules.images_are_built_or_pinned, "no file", lambda c: service(c, "api")["build"].update(dockerfile="Dockerfile")),
    (rules.images_are_built_or_pinned, "our own tag", lambda c: service(c, "api").update(image="stapo-api:latest")),
    (
        rules.images_are_built_or_pinned,
        "an argument",
        lambda c: service(c, "worker")["build"].update(args={"GPU": "1"}),
    ),
    (rules.services_are_hardened, "root", lambda c: service(c, "worker").update(user="0:0")),
    (rules.services_are_hardened, "a named user", lambda c: service(c, "postgres").update(user="postgres")),
    (rules.services_are_hardened, "no user", lambda c: service(c, "api").pop("user")),
    (rules.services_are_hardened, "a writable root", lambda c: service(c, "api").update(read_only=False)),
    (rules.services_are_hardened, "capabilities", lambda c: service(c, "valkey").pop("cap_drop")),
    (rules.services_are_hardened, "new privileges", lambda c: service(c, "valkey").pop("security_opt")),
    (rules.services_are_hardened, "privileged", lambda c: service(c, "worker").update(privileged=True)),
    (rules.services_are_hardened, "the host's memory", lambda c: service(c, "worker").update(ipc="host")),
    (rules.services_are_hardened, "no /tmp", lambda c: service(c, "dashboard").pop("tmpfs")),
    (
        rules.services_are_hardened,
        "the engine's socket",
        lambda c: service(c, "worker")["volumes"].append("/var/run/docker.sock:/var/run/docker.sock"),
    ),
    (rules.services_are_bounded, "memory", lambda c: service(c, "api")["deploy"]["resources"]["limits"].pop("memory")),
    (rules.services_are_bounded, "logs", lambda c: service(c, "worker").pop("logging")),
    (rules.services_are_checked, "no check", lambda c: service(c, "worker").pop("healthcheck")),
    (
        rules.services_are_checked,
        "another check than the image's",
        lambda c: service(c, "api")["healthcheck"].update(test=["CMD", "true"]),
    ),
    (rules.data_is_out_of_reach, "dashboard to data", lambda c: service(c, "dashboard")["networks"].append("backend")),
    (rules.data_is_out_of_reach, "a way out", lambda c: c["networks"].update(backend={})),
    (rules.data_is_out_of_reach, "a published database", lambda c: service(c, "postgres").update(ports=["5432:5432"])),
    (rules.data_is_out_of_reach, "no way to the api", lambda c: service(c, "dashboard").update(networks=["other"])),
    (rules.ports_listen_where_told, "every address", lambda c: service(c, "api").update(ports=["8000:8000"])),
    (rules.variables_are_listed, "an unlisted one", lambda c: service(c, "api").update(cpuset="${STAPO_CPUS:?set it}")),
    (rules.variables_are_listed, "a silent one", lambda c: service(c, "api").update(cpuset="${STAPO_BIND}")),
    (rules.variables_are_listed, "a default", lambda c: service(c, "api").update(cpuset="${STAPO_BIND:-0}")),
    (rules.variables_are_listed, "an unused one", lambda c: service(c, "dashboard")["environment"].clear()),
    (
        rules.settings_are_known,
        "a misspelt setting",
        lambda c: service(c, "api")["environment"].update(STAPO_HOMES="/"),
    ),
    (rules.settings_are_known, "a missing home", lambda c: service(c, "worker")["environment"].pop("STAPO_HOME")),
    (
        rules.settings_are_known,
        "a missing secret",
        lambda c: service(c, "migrate").update(secrets=["stapo_broker_url"]),
    ),
    (
        rules.settings_are_known,
        "a password in the environment",
        lambda c: service(c, "api")["environment"].update(
            STAPO_DATABASE_URL="postgresql+psycopg://stapo:x@postgres/stapo"
        ),
    ),
    (rules.commands_exist, "no such module", lambda c: service(c, "migrate")["command"].append("api.up")),
    (
        rules.the_worker_has_time_to_drain,
        "a short grace",
        lambda c: service(c, "worker").update(stop_grace_period="60s"),
    ),
    (rules.the_worker_scales, "one name", lambda c: service(c, "worker").update(container_name="worker")),
    (rules.volumes_belong_to_the_user, "another user", lambda c: service(c, "api").update(user="1000:1000")),
    (
        rules.volumes_belong_to_the_user,
        "another folder",
        lambda c: service(c, "worker")["volumes"].append("cache:/cache"),
    ),
]


@pytest.mark.parametrize(("rule", "fault", "plant"), FAULTS, ids=[f"{r.__name__}: {f}" for r, f, _ in FAULTS])
def test_the_rule_refuses_a_planted_fault(rule: Rule, fault: str, plant: Plant) -> None:
    compose = read_compose()
    plant(compose)
    assert rule(compose), f"not refused: {fault}"


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _, _ in FAULTS} == set(rules.RULES)


@pytest.mark.parametrize("read", [read_compose, read_cpu_compose, read_judges_compose])
def test_the_compose_file_is_valid_by_the_schema(read: Callable[[], Document], tmp_path: Path) -> None:
    result = validate(read(), tmp_path)
    assert result.returncode == 0, result.stdout


def test_the_schema_refuses_a_misspelt_condition(tmp_path: Path) -> None:
    compose = read_compose()
    compose["services"]["api"]["depends_on"]["postgres"] = {"conditon": "service_healthy"}
    result = validate(compose, tmp_path)
    assert result.returncode == 1
    assert "services.api" in result.stdout


def test_the_worker_reaches_the_world_only_to_ask_judges() -> None:
    alone, judged = (read()["services"]["worker"] for read in (read_compose, read_judges_compose))
    assert alone["networks"] == ["backend"]
    assert judged["networks"] == ["backend", "frontend"]
    listed = judged["environment"]["STAPO_JUDGES_FILE"]
    assert Path(listed).parent in [Path(target) for _, _, target in rules.mounts(judged)]


def test_the_gpu_is_asked_for_only_where_there_is_one() -> None:
    devices = read_compose()["services"]["worker"]["deploy"]["resources"]["reservations"]["devices"]
    assert [(device["capabilities"], device["count"]) for device in devices] == [(["gpu"], "all")]
    cpu = read_cpu_compose()["services"]["worker"]
    assert "reservations" not in cpu["deploy"]["resources"]
    assert cpu["build"]["args"] == {"SAMPLER": "none", "TORCH_BACKEND": "cpu"}
    assert cpu["image"] != read_compose()["services"]["worker"]["image"]


def service(compose: Document, name: str) -> Document:
    found = compose["services"][name]
    assert isinstance(found, dict)
    return found


def validate(compose: Document, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / "docker-compose.json"
    file.write_text(json.dumps(compose))
    program = Path(sys.executable).with_name("check-jsonschema")
    command = [str(program), "--builtin-schema", "vendor.compose-spec", str(file)]
    return subprocess.run(command, capture_output=True, text=True, check=False)
