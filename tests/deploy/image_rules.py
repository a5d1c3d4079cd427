"""What must hold of the Dockerfile. Each rule takes the parsed stages and returns its complaints."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from tests.deploy.documents import ROOT, Stage, exec_form, lineage, read_version

Stages = dict[str, Stage]

IMAGES = ("api", "dashboard", "worker")
HEAVY = {"torch", "transformers", "vllm"}
SITE_PACKAGES = re.compile(r"/opt/stapo/lib/python(\d+\.\d+)/site-packages/(.+)")


def bases_are_pinned(stages: Stages) -> list[str]:
    """Every stage starts from another or from one Python image, pinned to a patch release of a slim Debian."""
    image = _argument(stages, "PYTHON_IMAGE")
    complaints = [] if re.fullmatch(r"python:3\.\d+\.\d+-slim-[a-z]+", image) else [f"{image} is not pinned"]
    bases = {stage.base for name, stage in stages.items() if name}
    return complaints + [f"unknown base {base}" for base in bases - set(stages) - {"${PYTHON_IMAGE}"}]


def images_run_without_root(stages: Stages) -> list[str]:
    """The last USER of each image is a number that is not root's, and that user was made."""
    complaints = []
    for name in IMAGES:
        users = stages[name].arguments("USER")
        made = re.findall(r"--uid (\d+)", _runs(stages, name))
        if not users or users[-1].split(":")[0] not in made or users[-1].startswith("0"):
            complaints.append(f"{name}: runs as {users[-1:]}, made was {made}")
    return complaints


def images_say_what_they_are(stages: Stages) -> list[str]:
    """Each image has a health check and a start command, both without a shell, and a label with the version."""
    complaints = []
    for name in IMAGES:
        for keyword in ("HEALTHCHECK", "CMD"):
            if len([a for a in stages[name].arguments(keyword) if "[" in a]) != 1:
                complaints.append(f"{name}: needs one {keyword} in exec form")
        copied = copied_files(stages[name])
        files = {w for a in stages[name].arguments("HEALTHCHECK") for w in exec_form(a) if w.endswith(".py")}
        complaints += [f"{name}: its health check runs {file}, which is not copied" for file in files - copied]
        labels = " ".join(label for stage in lineage(stages, name) for label in stage.arguments("LABEL"))
        if f'org.opencontainers.image.version="{read_version()}"' not in labels:
            complaints.append(f"{name}: its version label is not {read_version()}")
    return complaints


def copied_files(stage: Stage) -> set[str]:
    """Where single files of the checkout end up in the image."""
    found = set()
    for argument in stage.arguments("COPY"):
        *sources, target = argument.split()
        found |= {f"{target.rstrip('/')}/{source.split('/')[-1]}" for source in sources}
    return found


def copies_exist(stages: Stages) -> list[str]:
    """What is copied is in the checkout and passes .dockerignore, or comes from a stage."""
    ignore = (ROOT / ".dockerignore").read_text().splitlines()
    patterns = [line for line in ignore if line and not line.startswith("#")]
    passed = {pattern[1:].rstrip("/") for pattern in patterns if pattern.startswith("!")}
    complaints = [] if patterns[0] == "*" else [".dockerignore must begin by leaving all out"]
    for stage in stages.values():
        for argument in stage.arguments("COPY"):
            *sources, _ = argument.split()
            if sources[0].startswith("--from="):
                complaints += [] if sources[0][7:] in stages else [f"no stage {sources[0][7:]}"]
                continue
            complaints += [f"{source} does not exist" for source in sources if not (ROOT / source).exists()]
            complaints += [f"{s} is left out by .dockerignore" for s in sources if s.rstrip("/") not in passed]
    return complaints


def the_whole_project_is_copied(stages: Stages) -> list[str]:
    """The wheel is built from every package that pyproject.toml lists."""
    copied = {source.rstrip("/") for a in stages["wheel"].arguments("COPY") for source in a.split()[:-1]}
    packages = set(_pyproject()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    return [f"copied and packaged differ: {sorted(copied ^ packages)}"] if copied != packages else []


def installs_are_constrained(stages: Stages) -> list[str]:
    """Each environment takes its own extra, by the constraints and the override, with the uv of the Makefile."""
    complaints = []
    for name in IMAGES:
        command = next((run for run in stages[f"build-{name}"].arguments("RUN") if "-r pyproject.toml" in run), "")
        wanted = ("--constraint constraints.txt", "--override deploy/override.txt", f"--extra {name}")
        complaints += [f"build-{name}: no {part}" for part in wanted if part not in command]
        extras = set(re.findall(r"--extra (\S+)", command))
        if name != "worker" and extras != {name}:
            complaints.append(f"build-{name}: takes {sorted(extras)}")
        if name == "worker" and "--extra worker --extra vllm ;;" not in command:
            complaints.append("build-worker: no vLLM")
    if f"uv=={_argument(stages, 'UV_VERSION')}\n" not in (ROOT / "Makefile").read_text():
        complaints.append("the Makefile installs another uv")
    return complaints


def light_images_are_free_of_torch(stages: Stages) -> list[str]:
    """What the extras of the API's and the dashboard's image install, by the metadata of each package, has no torch."""
    complaints = []
    for name in ("api", "dashboard"):
        command = " ".join(stages[f"build-{name}"].arguments("RUN"))
        heavy = HEAVY & installed_by(re.findall(r"--extra (\S+)", command))
        complaints += [f"{name}: {package} comes along" for package in sorted(heavy)]
    return complaints


def runtimes_hold_no_build_tools(stages: Stages) -> list[str]:
    """An image takes the environment from its build stage; it neither starts from it nor installs a package itself."""
    complaints = []
    for name in IMAGES:
        if "build" in {stage.name for stage in lineage(stages, name)}:
            complaints.append(f"{name}: starts from the build stage")
        if re.search(r"\b(pip|uv) ", _runs(stages, name)):
            complaints.append(f"{name}: installs packages in the runtime stage")
        if f"--from=build-{name} /opt/stapo /opt/stapo" not in stages[name].arguments("COPY"):
            complaints.append(f"{name}: does not take the environment of build-{name}")
    return complaints


def layers_hold_no_secret(stages: Stages) -> list[str]:
    """No ARG or ENV carries a password, a key or a connection string: layers and history are for everybody to read."""
    names = [
        name
        for stage in stages.values()
        for argument in (*stage.arguments("ARG"), *stage.arguments("ENV"))
        for name in re.findall(r"(?:^|\s)([A-Z_]+)=?", argument)
    ]
    return [f"{name} looks like a secret" for name in names if re.search(r"PASSWORD|SECRET|TOKEN|KEY|_URL$", name)]


def start_commands_exist(stages: Stages) -> list[str]:
    """Each start command names a module, or a script in the environment, that the project has."""
    return [c for name in IMAGES for c in command_complaints(name, exec_form(stages[name].arguments("CMD")[0]), stages)]


def command_complaints(name: str, command: list[str], stages: Stages) -> list[str]:
    """What a start command names that does not exist."""
    complaints = []
    modules = [command[2], *[word.split(":")[0] for word in command if re.fullmatch(r"[a-z_]+\.[a-z_]+(:\w+)?", word)]]
    if command[:2] != ["python", "-m"]:
        complaints.append(f"{name}: {command} does not start a module")
    complaints += [f"{name}: no module {module}" for module in modules if importlib.util.find_spec(module) is None]
    for word in command:
        module, _, attribute = word.partition(":")
        if attribute and module in modules and f"\ndef {attribute}(" not in _source(module):
            complaints.append(f"{name}: {module} has no {attribute}")
        script = SITE_PACKAGES.fullmatch(word)
        if script and not (ROOT / script[2]).is_file():
            complaints.append(f"{name}: no script {script[2]}")
        if script and not _argument(stages, "PYTHON_IMAGE").startswith(f"python:{script[1]}."):
            complaints.append(f"{name}: {word} is not where this Python keeps its packages")
    return complaints


def installed_by(extras: Iterable[str]) -> set[str]:
    """Every distribution that these extras of the project bring in on this machine, by following the metadata."""
    project = _pyproject()["project"]
    seen: set[tuple[str, str]] = set()
    todo = [Requirement(line) for line in project["dependencies"]]
    todo += [Requirement(f"stapo[{extra}]") for extra in extras]
    while todo:
        requirement = todo.pop()
        name = requirement.name.lower().replace("_", "-")
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            lines = project["optional-dependencies"].get(extra, []) if name == "stapo" else _requires(name)
            parsed = [Requirement(line) for line in lines]
            todo += [r for r in parsed if r.marker is None or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in seen}


def _requires(name: str) -> list[str]:
    try:
        return importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError:  # for another platform
        return []


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).read_text() if spec and spec.origin else ""


def _runs(stages: Stages, name: str) -> str:
    return " ".join(run for stage in lineage(stages, name) for run in stage.arguments("RUN"))


def _argument(stages: Stages, name: str) -> str:
    values = [a.partition("=") for stage in stages.values() for a in stage.arguments("ARG")]
    return next(value for key, _, value in values if key == name)


def _pyproject() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


RULES = (
    bases_are_pinned,
    images_run_without_root,
    images_say_what_they_are,
    copies_exist,
    the_whole_project_is_copied,
    installs_are_constrained,
    light_images_are_free_of_torch,
    runtimes_hold_no_build_tools,
    layers_hold_no_secret,
    start_commands_exist,
)
