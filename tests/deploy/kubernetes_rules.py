"""What must hold of the Kubernetes objects. Each rule takes them parsed and returns its complaints."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from api.settings import Settings
from tests.deploy.documents import DEPLOY, Document, exec_form, read_dockerfile, read_kustomization, read_version
from tests.deploy.image_rules import copied_files

Documents = list[Document]

PODS = ("stapo-migrate", "stapo-api", "stapo-worker", "stapo-dashboard")


def everything_is_there(objects: Documents) -> list[str]:
    """Every pod has its object, every file is in the kustomization, and no object names a namespace."""
    workloads = {o["metadata"]["name"] for o in objects if o["kind"] in ("Deployment", "Job")}
    complaints = [f"workloads are {sorted(workloads)}"] if workloads != set(PODS) else []
    files = {file.name for file in (DEPLOY / "kubernetes").glob("*.yaml")} - {"kustomization.yaml"}
    if files != set(read_kustomization()["resources"]):
        complaints.append("the kustomization does not list every file")
    return complaints + [f"{o['metadata']['name']} names a namespace" for o in objects if "namespace" in o["metadata"]]


def images_are_ours(objects: Documents) -> list[str]:
    """Every container runs an image that the kustomization pins to the project's version and the Dockerfile makes."""
    pins = {image["name"]: image["newTag"] for image in read_kustomization()["images"]}
    complaints = [f"{name} is pinned to {tag}" for name, tag in pins.items() if tag != read_version()]
    for name, container in all_containers(objects):
        image = container["image"]
        if image not in pins or image.removeprefix("stapo-") not in read_dockerfile():
            complaints.append(f"{name}: {image} is not pinned or not made here")
    return complaints


def pods_are_restricted(objects: Documents) -> list[str]:
    """The standard `restricted`: no root, no capability, no new right, the default seccomp profile; and read-only."""
    complaints = []
    for name, pod in pods(objects):
        security = pod.get("securityContext", {})
        wanted: Document = {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        complaints += [f"{name}: {key} must be {value}" for key, value in wanted.items() if security.get(key) != value]
        if pod.get("automountServiceAccountToken") is not False:
            complaints.append(f"{name}: holds a token of the cluster")
        complaints += [f"{name}: {key} is not wanted" for key in pod if key.startswith("host")]
        complaints += [f"{name}: hostPath" for volume in pod["volumes"] if "hostPath" in volume]
    for name, container in all_containers(objects):
        wanted = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        if container.get("securityContext") != wanted:
            complaints.append(f"{name}: its container must have {wanted}")
    return complaints


def pods_are_bounded(objects: Documents) -> list[str]:
    """Every container asks for and is limited in processor and memory; the worker has a GPU."""
    complaints = []
    for name, container in all_containers(objects):
        for kind in ("requests", "limits"):
            given = container.get("resources", {}).get(kind, {})
            complaints += [f"{name}: no {kind} of {key}" for key in ("cpu", "memory") if key not in given]
        gpus = container.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0)
        if gpus != (1 if name == "stapo-worker" else 0):
            complaints.append(f"{name}: {gpus} GPUs")
    return complaints


def references_resolve(objects: Documents) -> list[str]:
    """Every mount has its volume, every claim and ConfigMap its object, every service its pods and port."""
    named = {(o["kind"], o["metadata"]["name"]) for o in objects}
    complaints = []
    for name, pod in pods(objects):
        volumes = {volume["name"] for volume in pod["volumes"]}
        mounted = {mount["name"] for container in pod["containers"] for mount in container["volumeMounts"]}
        if mounted != volumes:
            complaints.append(f"{name}: mounts and volumes differ: {sorted(mounted ^ volumes)}")
        claims = [v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
        complaints += [f"{name}: no claim {c}" for c in claims if ("PersistentVolumeClaim", c) not in named]
        complaints += [f"{name}: no ConfigMap {c}" for c in _config_maps(pod) if ("ConfigMap", c) not in named]
    for service in (o for o in objects if o["kind"] == "Service"):
        ports = _ports_behind(objects, service["spec"]["selector"])
        wanted = {(port["targetPort"], port["port"]) for port in service["spec"]["ports"]}
        complaints += [f"{service['metadata']['name']}: no pod serves {p}" for p in sorted(wanted - ports)]
    return complaints


def secrets_are_references(objects: Documents) -> list[str]:
    """The one Secret is the operator's own; no object holds one, and only what needs the database mounts it."""
    complaints = [f"{o['metadata']['name']} is a Secret" for o in objects if o["kind"] == "Secret"]
    for name, pod in pods(objects):
        secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
        if secrets != ([] if name == "stapo-dashboard" else ["stapo"]):
            complaints.append(f"{name}: mounts the secrets {secrets}")
        places = {m["mountPath"] for c in pod["containers"] for m in c["volumeMounts"] if m["name"] == "secrets"}
        if secrets and places != {"/run/secrets"}:
            complaints.append(f"{name}: the settings do not look at {sorted(places)}")
    told = [text for o in objects for text in _strings(o) if re.search(r"://[^/\s]*:[^/\s]*@", text)]
    return complaints + [f"{text} holds a password" for text in told]


def settings_are_known(objects: Documents) -> list[str]:
    """Every variable of the API, the worker and the migration is a setting; the home is one they can write to."""
    fields = {f"STAPO_{field.upper()}" for field in Settings.model_fields}
    shared = {"STAPO_PUBLIC_API_URL"}  # in the ConfigMap for the dashboard
    complaints = []
    for name, container in containers(objects):
        if name == "stapo-dashboard":
            continue
        variables = {variable["name"]: variable["value"] for variable in container["env"]}
        complaints += [f"{name}: {variable} is no setting" for variable in sorted(set(variables) - fields)]
        if variables.get("STAPO_HOME") not in {mount["mountPath"] for mount in container["volumeMounts"]}:
            complaints.append(f"{name}: its home is not on a volume")
    data = next(o["data"] for o in objects if o["kind"] == "ConfigMap")
    return complaints + [f"ConfigMap: {key} is no setting" for key in sorted(set(data) - fields - shared)]


def probes_are_those_of_the_images(objects: Documents) -> list[str]:
    """API: lives by /healthz, serves by what traffic needs. Worker: an outage must not kill a trainer by a probe."""
    stages = read_dockerfile()
    complaints = []
    by_name = dict(containers(objects))
    for name, probe, path in (
        ("stapo-api", "startupProbe", "/healthz"),
        ("stapo-api", "livenessProbe", "/healthz"),
        ("stapo-api", "readinessProbe", "/readyz?for=traffic"),
        ("stapo-dashboard", "livenessProbe", "/_stcore/health"),
        ("stapo-dashboard", "readinessProbe", "/_stcore/health"),
    ):
        if by_name[name].get(probe, {}).get("httpGet") != {"path": path, "port": "http"}:
            complaints.append(f"{name}: {probe} must ask for {path}")
    worker = by_name["stapo-worker"]
    if worker.get("readinessProbe", {}).get("exec", {}).get("command") != exec_form(
        stages["worker"].arguments("HEALTHCHECK")[0]
    ):
        complaints.append("stapo-worker: its readiness probe is not the health check of its image")
    if "livenessProbe" in worker:
        complaints.append("stapo-worker: an outage of the database would kill the trainer")
    return complaints


def pods_wait_for_the_schema(objects: Documents) -> list[str]:
    """API and worker start only on the schema of their own version, by a script that their image holds."""
    stages = read_dockerfile()
    complaints = []
    for name in ("stapo-api", "stapo-worker"):
        first = dict(pods(objects))[name].get("initContainers", [{}])[0]
        script = first.get("command", ["", ""])[1]
        if not script.endswith("/schema_ready.py") or script not in copied_files(stages[name.removeprefix("stapo-")]):
            complaints.append(f"{name}: starts before the migration, or its image has no {script!r}")
        if {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True} not in first.get("volumeMounts", []):
            complaints.append(f"{name}: cannot ask the database")
    return complaints


def the_worker_has_time_to_drain(objects: Documents) -> list[str]:
    """The pod is killed later than the worker gives up on its trainers."""
    drain_s = float(next(o["data"]["STAPO_DRAIN_S"] for o in objects if o["kind"] == "ConfigMap"))
    grace_s = dict(pods(objects))["stapo-worker"].get("terminationGracePeriodSeconds", 30)
    return [] if grace_s >= drain_s + 30 else [f"{grace_s} s of grace for a drain of {drain_s} s"]


def the_dashboard_reaches_the_api_alone(objects: Documents) -> list[str]:
    """A policy lets the dashboard out to the API and to name servers; nobody is let in to a worker."""
    policies = {o["metadata"]["name"]: o["spec"] for o in objects if o["kind"] == "NetworkPolicy"}
    dashboard, worker = policies.get("stapo-dashboard", {}), policies.get("stapo-worker", {})
    api = {"podSelector": {"matchLabels": {"app.kubernetes.io/name": "stapo-api"}}}
    wanted = [
        {"to": [api], "ports": [{"protocol": "TCP", "port": 8000}]},
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
    ]
    complaints = []
    if dashboard.get("egress") != wanted or "Egress" not in dashboard.get("policyTypes", []):
        complaints.append("the dashboard may reach more than the API")
    if worker.get("ingress") != [] or "Ingress" not in worker.get("policyTypes", []):
        complaints.append("a worker may be reached")
    for name, policy in policies.items():
        if policy["podSelector"] != {"matchLabels": {"app.kubernetes.io/name": name}}:
            complaints.append(f"{name}: its policy is for other pods")
    return complaints


def pods(objects: Documents) -> Iterator[tuple[str, Document]]:
    """Each workload's name and pod."""
    for item in objects:
        if item["kind"] in ("Deployment", "Job"):
            yield item["metadata"]["name"], item["spec"]["template"]["spec"]


def containers(objects: Documents) -> Iterator[tuple[str, Document]]:
    """Each workload's name and container, of which it has one."""
    for name, pod in pods(objects):
        for container in pod["containers"]:
            yield name, container


def all_containers(objects: Documents) -> Iterator[tuple[str, Document]]:
    """The same with the containers that run before it."""
    yield from containers(objects)
    for name, pod in pods(objects):
        for container in pod.get("initContainers", []):
            yield f"{name} ({container['name']})", container


def _ports_behind(objects: Documents, selector: Document) -> set[tuple[str, int]]:
    return {
        (port["name"], port["containerPort"])
        for item in objects
        if item["kind"] == "Deployment" and item["spec"]["template"]["metadata"]["labels"] == selector
        for container in item["spec"]["template"]["spec"]["containers"]
        for port in container.get("ports", [])
    }


def _config_maps(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, part in value.items():
            if key in ("configMapRef", "configMapKeyRef"):
                yield part["name"]
            else:
                yield from _config_maps(part)
    elif isinstance(value, list):
        for part in value:
            yield from _config_maps(part)


def _strings(value: Any) -> Iterator[str]:
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    for part in parts:
        yield from _strings(part)
    if isinstance(value, str):
        yield value


RULES = (
    everything_is_there,
    images_are_ours,
    pods_are_restricted,
    pods_are_bounded,
    references_resolve,
    secrets_are_references,
    settings_are_known,
    probes_are_those_of_the_images,
    pods_wait_for_the_schema,
    the_worker_has_time_to_drain,
    the_dashboard_reaches_the_api_alone,
)
