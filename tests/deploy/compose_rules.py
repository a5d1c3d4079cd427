"""What must hold of the compose file. Each rule takes the parsed file and returns its complaints."""

from __future__ import annotations

import re
from typing import Any

from api.settings import Settings
from tests.deploy.documents import ROOT, Document, exec_form, lineage, read_dockerfile, read_env_example, read_version
from tests.deploy.image_rules import command_complaints

NETWORKS_OF_DATA = ("postgres", "valkey")
PUBLISHED = {"api", "dashboard"}
_VARIABLE = re.compile(r"\$\{([A-Z_]+)(:\?[^}]+)?\}")


def names_resolve(compose: Document) -> list[str]:
    """Every network, volume and secret that a service uses is declared, and every declared one is used."""
    used: dict[str, set[str]] = {"networks": set(), "volumes": set(), "secrets": set()}
    for service in compose["services"].values():
        used["networks"] |= set(service.get("networks", []))
        used["secrets"] |= set(service.get("secrets", []))
        used["volumes"] |= {source for kind, source, _ in mounts(service) if kind == "volume"}
    return [
        f"{kind} used and declared differ: {sorted(names ^ set(compose[kind]))}"
        for kind, names in used.items()
        if names != set(compose[kind])
    ]


def dependencies_resolve(compose: Document) -> list[str]:
    """A service waits only for what exists: for health where there is a check, for an end where there is one."""
    complaints = []
    for name, service in compose["services"].items():
        for other, how in service.get("depends_on", {}).items():
            target = compose["services"].get(other)
            if target is None:
                complaints.append(f"{name} waits for {other}, which does not exist")
            elif how["condition"] == "service_healthy" and "test" not in target.get("healthcheck", {}):
                complaints.append(f"{name} waits for the health of {other}, which has no check")
            elif how["condition"] == "service_completed_successfully" and target.get("restart") != "no":
                complaints.append(f"{name} waits for the end of {other}, which is restarted")
    return complaints


def images_are_built_or_pinned(compose: Document) -> list[str]:
    """Our images are built from a stage that exists and carry the project's version; others name a full version."""
    stages = read_dockerfile()
    complaints = []
    for name, service in compose["services"].items():
        image, build = service["image"], service.get("build")
        if build is None and not re.fullmatch(r"[a-z/]+:\d+\.\d+(\.\d+)?", image):
            complaints.append(f"{name}: {image} is not pinned to a version")
        if build is None:
            continue
        if build["target"] not in stages:
            complaints.append(f"{name}: the Dockerfile has no stage {build['target']}")
        if not (ROOT / build["context"] / build["dockerfile"]).is_file():
            complaints.append(f"{name}: {build['dockerfile']} does not exist")
        if not re.fullmatch(r"stapo-[a-z-]+:\$\{STAPO_VERSION:\?[^}]+\}", image):
            complaints.append(f"{name}: {image} does not carry STAPO_VERSION")
        declared = {argument.split("=")[0] for stage in stages.values() for argument in stage.arguments("ARG")}
        complaints += [f"{name}: no ARG {argument}" for argument in set(build.get("args", {})) - declared]
    return complaints


def services_are_hardened(compose: Document) -> list[str]:
    """No root, no capability, no new right, no writable root file system, nothing of the host."""
    complaints = []
    for name, service in compose["services"].items():
        wanted: dict[str, Any] = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
        complaints += [f"{name}: {key} must be {value}" for key, value in wanted.items() if service.get(key) != value]
        if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", str(service.get("user", "0:0"))):
            complaints.append(
                f"{name}: runs as {service.get('user', 'the image')!r}; it needs a numeric user, not root"
            )
        taken = {"privileged", "cap_add", "network_mode", "pid", "userns_mode", "devices", "env_file"} & set(service)
        complaints += [f"{name}: {key} is not wanted" for key in sorted(taken)]
        if service.get("ipc", "private") != "private":
            complaints.append(f"{name}: ipc must be private")
        if "/tmp" not in service.get("tmpfs", []):  # noqa: S108
            complaints.append(f"{name}: /tmp must be a tmpfs, the rest is read-only")
        complaints += [f"{name}: mounts the engine's socket" for mount in mounts(service) if "docker.sock" in mount[1]]
    return complaints


def services_are_bounded(compose: Document) -> list[str]:
    """Processors, memory, processes and logs have a limit."""
    complaints = []
    for name, service in compose["services"].items():
        limits = service.get("deploy", {}).get("resources", {}).get("limits", {})
        complaints += [f"{name}: no limit of {key}" for key in ("cpus", "memory", "pids") if key not in limits]
        if "max-size" not in service.get("logging", {}).get("options", {}):
            complaints.append(f"{name}: its log grows for ever")
    return complaints


def services_are_checked(compose: Document) -> list[str]:
    """Every service that stays up has a health check; ours is the one of its image."""
    stages = read_dockerfile()
    ends = {
        other
        for service in compose["services"].values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_completed_successfully"
    }
    complaints = []
    for name, service in compose["services"].items():
        test = service.get("healthcheck", {}).get("test")
        if name in ends:
            continue
        if not test:
            complaints.append(f"{name}: no health check")
        elif "build" in service and test != ["CMD", *exec_form(stages[name].arguments("HEALTHCHECK")[0])]:
            complaints.append(f"{name}: its health check is not that of its image")
    return complaints


def data_is_out_of_reach(compose: Document) -> list[str]:
    """The dashboard shares no network with database or broker, theirs leads nowhere else, and only two ports open."""
    services = compose["services"]
    complaints = []
    for name in NETWORKS_OF_DATA:
        shared = set(services["dashboard"]["networks"]) & set(services[name]["networks"])
        complaints += [f"the dashboard reaches {name} over {network}" for network in shared]
        leaky = [n for n in services[name]["networks"] if not (compose["networks"].get(n) or {}).get("internal")]
        complaints += [f"{name} is on {network}, which is not internal" for network in leaky]
    if not set(services["dashboard"]["networks"]) & set(services["api"]["networks"]):
        complaints.append("the dashboard does not reach the api")
    published = {name for name, service in services.items() if service.get("ports")}
    if published != PUBLISHED:
        complaints.append(f"published are {sorted(published)}, not {sorted(PUBLISHED)}")
    return complaints


def ports_listen_where_told(compose: Document) -> list[str]:
    """A published port names its address, and the address is this machine's own unless the operator says otherwise."""
    complaints = []
    for name, service in compose["services"].items():
        for port in service.get("ports", []):
            if not port.startswith("${STAPO_BIND:?"):
                complaints.append(f"{name}: {port} listens on every address")
    if read_env_example()["STAPO_BIND"] != "127.0.0.1":
        complaints.append("STAPO_BIND is not the loopback address by default")
    return complaints


def variables_are_listed(compose: Document) -> list[str]:
    """A missing variable stops compose; .env.example lists every one, none beside, and the project's version."""
    found: dict[str, str] = {}
    complaints = []
    for text in _strings(compose):
        if text.count("${") != len(_VARIABLE.findall(text)):
            complaints.append(f"cannot read the variables of {text!r}")
        for name, missing in _VARIABLE.findall(text):
            found[name] = missing
            if not missing:
                complaints.append(f"{name} may be missing without a word")
    listed = read_env_example()
    complaints += [f"{name} is not both used and in .env.example" for name in sorted(set(found) ^ set(listed))]
    complaints += [f"{name} is empty in .env.example" for name, value in listed.items() if not value]
    if listed.get("STAPO_VERSION") != read_version():
        complaints.append("STAPO_VERSION is not the project's version")
    return complaints


def settings_are_known(compose: Document) -> list[str]:
    """What the API and the worker are told is a setting; the required ones come, the connection strings as secrets."""
    fields = {f"STAPO_{name.upper()}": info for name, info in Settings.model_fields.items()}
    required = {name for name, info in fields.items() if info.is_required()}
    complaints = []
    for name in ("migrate", "api", "worker"):
        service = compose["services"][name]
        told = set(service["environment"])
        secret = {secret.upper() for secret in service["secrets"]}
        complaints += [f"{name}: {variable} is no setting" for variable in sorted((told | secret) - set(fields))]
        complaints += [f"{name}: {variable} is missing" for variable in sorted(required - told - secret)]
        complaints += [
            f"{name}: {v} belongs into a secret" for v in ("STAPO_DATABASE_URL", "STAPO_BROKER_URL") if v in told
        ]
    return complaints


def commands_exist(compose: Document) -> list[str]:
    """A command that takes the place of an image's own names a module that exists."""
    stages = read_dockerfile()
    return [
        complaint
        for name, service in compose["services"].items()
        if "build" in service and "command" in service
        for complaint in command_complaints(name, service["command"], stages)
    ]


def the_worker_has_time_to_drain(compose: Document) -> list[str]:
    """Compose kills a container after its grace period: later than the worker gives up on its trainers."""
    worker = compose["services"]["worker"]
    drain_s = float(worker["environment"]["STAPO_DRAIN_S"])
    grace_s = float(re.fullmatch(r"(\d+)s", worker["stop_grace_period"]).group(1))  # type: ignore[union-attr]
    return [] if grace_s >= drain_s + 30 else [f"{grace_s} s of grace for a drain of {drain_s} s"]


def the_worker_scales(compose: Document) -> list[str]:
    """`--scale worker=N` works: nothing of the worker can exist only once."""
    once = {"container_name", "ports", "hostname"} & set(compose["services"]["worker"])
    return [f"worker: {key} forbids a second one" for key in sorted(once)]


def volumes_belong_to_the_user(compose: Document) -> list[str]:
    """A folder that one of our containers writes to exists in its image and belongs to the user it runs as."""
    stages = read_dockerfile()
    complaints = []
    for name, service in compose["services"].items():
        if "build" not in service:
            continue
        runs = " ".join(run for stage in lineage(stages, service["build"]["target"]) for run in stage.arguments("RUN"))
        owned = re.search(r"install --directory --owner=(\d+) --group=(\d+) \S+ ([^&]+)", runs)
        user, folders = (f"{owned[1]}:{owned[2]}", owned[3].split()) if owned else ("", [])
        if user != service["user"]:
            complaints.append(f"{name}: runs as {service['user']}, the folders belong to {user}")
        for kind, _, target in mounts(service):
            if kind == "volume" and target not in folders:
                complaints.append(f"{name}: the image has no folder {target}")
    return complaints


def mounts(service: Document) -> list[tuple[str, str, str]]:
    """Kind, source and target of each mount, in either notation."""
    found = []
    for mount in service.get("volumes", []):
        if isinstance(mount, dict):
            found.append((mount["type"], mount["source"], mount["target"]))
        else:
            source, target = mount.split(":")[:2]
            found.append(("bind" if source.startswith((".", "/", "$")) else "volume", source, target))
    return found


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for part in value.values() for text in _strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in _strings(part)]
    return [value] if isinstance(value, str) else []


RULES = (
    names_resolve,
    dependencies_resolve,
    images_are_built_or_pinned,
    services_are_hardened,
    services_are_bounded,
    services_are_checked,
    data_is_out_of_reach,
    ports_listen_where_told,
    variables_are_listed,
    settings_are_known,
    commands_exist,
    the_worker_has_time_to_drain,
    the_worker_scales,
    volumes_belong_to_the_user,
)
