"""The Kubernetes objects keep their rules, and each rule refuses objects in which its fault is planted."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.deploy import kubernetes_rules as rules
from tests.deploy.documents import Document, read_kubernetes

Rule = Callable[[list[Document]], list[str]]
Plant = Callable[[list[Document]], object]


@pytest.mark.parametrize("rule", rules.RULES, ids=lambda rule: rule.__name__)
def test_the_objects_keep_the_rule(rule: Rule) -> None:
    assert rule(read_kubernetes()) == []


FAULTS: list[tuple[Rule, str, Plant]] = [
    (rules.everything_is_there, "no worker", lambda o: o.remove(workload(o, "stapo-worker"))),
    (rules.everything_is_there, "a namespace", lambda o: workload(o, "stapo-api")["metadata"].update(namespace="x")),
    (rules.images_are_ours, "another image", lambda o: container(o, "stapo-api").update(image="python:3")),
    (rules.pods_are_restricted, "root", lambda o: pod(o, "stapo-api")["securityContext"].update(runAsUser=0)),
    (rules.pods_are_restricted, "no seccomp", lambda o: pod(o, "stapo-api")["securityContext"].pop("seccompProfile")),
    (rules.pods_are_restricted, "a token", lambda o: pod(o, "stapo-worker").pop("automountServiceAccountToken")),
    (rules.pods_are_restricted, "the host's network", lambda o: pod(o, "stapo-worker").update(hostNetwork=True)),
    (rules.pods_are_restricted, "no context", lambda o: container(o, "stapo-migrate").pop("securityContext")),
    (
        rules.pods_are_restricted,
        "a capability",
        lambda o: container(o, "stapo-worker")["securityContext"].update(capabilities={"add": ["SYS_ADMIN"]}),
    ),
    (
        rules.pods_are_bounded,
        "no memory limit",
        lambda o: container(o, "stapo-api")["resources"]["limits"].pop("memory"),
    ),
    (
        rules.pods_are_bounded,
        "no GPU",
        lambda o: container(o, "stapo-worker")["resources"]["limits"].pop("nvidia.com/gpu"),
    ),
    (rules.references_resolve, "no volume", lambda o: pod(o, "stapo-api")["volumes"].pop()),
    (rules.references_resolve, "no claim", lambda o: o.remove(named(o, "PersistentVolumeClaim", "stapo-key"))),
    (rules.references_resolve, "no ConfigMap", lambda o: o.remove(named(o, "ConfigMap", "stapo"))),
    (rules.references_resolve, "no port", lambda o: container(o, "stapo-dashboard").pop("ports")),
    (
        rules.references_resolve,
        "no pods",
        lambda o: named(o, "Service", "stapo-api")["spec"].update(selector={"app": "stapo"}),
    ),
    (rules.secrets_are_references, "a secret", lambda o: o.append({"kind": "Secret", "metadata": {"name": "stapo"}})),
    (
        rules.secrets_are_references,
        "a password in a variable",
        lambda o: container(o, "stapo-api")["env"].append({"name": "X", "value": "redis://stapo:secret@valkey/0"}),
    ),
    (
        rules.secrets_are_references,
        "a place the settings do not look at",
        lambda o: container(o, "stapo-api")["volumeMounts"][0].update(mountPath="/etc/secrets"),
    ),
    (
        rules.secrets_are_references,
        "the database's password on the dashboard",
        lambda o: pod(o, "stapo-dashboard")["volumes"].append({"name": "secrets", "secret": {"secretName": "stapo"}}),
    ),
    (
        rules.settings_are_known,
        "a misspelt setting",
        lambda o: named(o, "ConfigMap", "stapo")["data"].update(STAPO_DRAIN_SECONDS="60"),
    ),
    (
        rules.settings_are_known,
        "a home in the image",
        lambda o: container(o, "stapo-api")["env"][0].update(value="/srv"),
    ),
    (rules.probes_are_those_of_the_images, "no probe", lambda o: container(o, "stapo-api").pop("livenessProbe")),
    (
        rules.probes_are_those_of_the_images,
        "alive only when ready",
        lambda o: container(o, "stapo-api")["livenessProbe"]["httpGet"].update(path="/readyz"),
    ),
    (
        rules.probes_are_those_of_the_images,
        "a liveness probe that asks the database",
        lambda o: container(o, "stapo-worker").update(livenessProbe={"exec": {"command": ["true"]}}),
    ),
    (rules.pods_wait_for_the_schema, "no wait", lambda o: pod(o, "stapo-worker").pop("initContainers")),
    (
        rules.pods_wait_for_the_schema,
        "no such script",
        lambda o: pod(o, "stapo-api")["initContainers"][0].update(command=["python", "/opt/schema_ready.py"]),
    ),
    (
        rules.pods_are_restricted,
        "a container that runs first, with more rights",
        lambda o: pod(o, "stapo-api")["initContainers"][0].pop("securityContext"),
    ),
    (
        rules.the_worker_has_time_to_drain,
        "a short grace",
        lambda o: pod(o, "stapo-worker").update(terminationGracePeriodSeconds=30),
    ),
    (
        rules.the_dashboard_reaches_the_api_alone,
        "a way to the database",
        lambda o: named(o, "NetworkPolicy", "stapo-dashboard")["spec"]["egress"].append({"ports": [{"port": 5432}]}),
    ),
    (
        rules.the_dashboard_reaches_the_api_alone,
        "a way to the worker",
        lambda o: named(o, "NetworkPolicy", "stapo-worker")["spec"].update(ingress=[{}]),
    ),
]


@pytest.mark.parametrize(("rule", "fault", "plant"), FAULTS, ids=[f"{r.__name__}: {f}" for r, f, _ in FAULTS])
def test_the_rule_refuses_a_planted_fault(rule: Rule, fault: str, plant: Plant) -> None:
    objects = read_kubernetes()
    plant(objects)
    assert rule(objects), f"not refused: {fault}"


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _, _ in FAULTS} == set(rules.RULES)


def named(objects: list[Document], kind: str, name: str) -> Document:
    return next(o for o in objects if o["kind"] == kind and o["metadata"]["name"] == name)


def workload(objects: list[Document], name: str) -> Document:
    return named(objects, "Job" if name == "stapo-migrate" else "Deployment", name)


def pod(objects: list[Document], name: str) -> Document:
    return dict(rules.pods(objects))[name]


def container(objects: list[Document], name: str) -> Document:
    return dict(rules.containers(objects))[name]
