"""Who imports whom: the contracts in pyproject.toml hold, each can fail, and no service starts with torch in memory."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.architecture.sources import ROOMS, ROOT

HEAVY = ("torch", "transformers", "vllm")

# Runs in a fresh interpreter: imports what the arguments name, then tells which of the heavy packages came along.
# A `.py` file is a page of Streamlit, which would ask the service when it runs: only its imports are carried out.
PROBE = """
import ast, importlib, sys
heavy, names = sys.argv[1].split(","), sys.argv[2:]
for name in names:
    if name.endswith(".py"):
        for node in ast.walk(ast.parse(open(name).read())):
            if isinstance(node, ast.Import | ast.ImportFrom) and getattr(node, "module", "") != "__future__":
                exec(compile(ast.Module([node], []), name, "exec"), {})
    else:
        importlib.import_module(name)
print(*sorted(set(heavy) & set(sys.modules)))
"""

ENTRIES = {
    "api": ["api.main", "api.store.migrate"],
    "worker": ["worker.celery_app", "worker.tasks"],
    "dashboard": sorted(str(file) for file in (ROOT / "dashboard").rglob("*.py")),
    "client": ["client.cli"],
}

PLANTS = {
    "The trainer knows no service": ("stapo_core/data/rows.py", "import httpx2"),
    "Config and events are free of torch": ("stapo_core/config/run.py", "import numpy"),
    "No service reaches torch, even through a chain": ("client/http.py", "import stapo_core.batch"),
    "The worker enters the API by six doors": ("worker/runner.py", "import api.schemas"),
    "The API knows neither worker nor guests": ("api/dispatch.py", "import worker.celery_app"),
    "The dashboard is a guest that speaks HTTP": ("dashboard/charts.py", "import api.settings"),
    "The client speaks the wire": ("client/http.py", "import api.lifecycle"),
    "SQL stays in the store": ("worker/runner.py", "import sqlalchemy"),
    "vLLM has one door": ("stapo_core/learner.py", "import vllm"),
    "The API's layers": ("api/errors.py", "import api.store"),
    "The worker's layers": ("worker/process.py", "import worker.runner"),
    "The client's layers": ("client/lock.py", "import client.launch"),
    "The trainer's layers": ("stapo_core/data/rows.py", "import stapo_core.train"),
}


def test_every_contract_is_kept() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("contract", PLANTS)
def test_the_contract_refuses_a_planted_import(contract: str, checkout: Path) -> None:
    path, line = PLANTS[contract]
    text = (checkout / path).read_text()
    (checkout / path).write_text(f"{text}\n{line}\n")
    result = lint_imports(checkout)
    (checkout / path).write_text(text)
    assert result.returncode == 1
    assert f"{contract} BROKEN" in result.stdout


@pytest.mark.parametrize(
    ("contract", "room"),
    [
        ("The API's layers", "api"),
        ("The worker's layers", "worker"),
        ("The client's layers", "client"),
        ("The trainer's layers", "stapo_core"),
    ],
)
def test_a_module_without_a_layer_is_refused(contract: str, room: str, checkout: Path) -> None:
    (checkout / room / "newcomer.py").touch()
    result = lint_imports(checkout)
    (checkout / room / "newcomer.py").unlink()
    assert result.returncode == 1
    assert f"{room}.newcomer" in result.stdout


def test_every_contract_has_a_planted_import() -> None:
    assert set(PLANTS) == {contract["name"] for contract in contracts()}


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_service_starts_without_torch(entry: str) -> None:
    assert brought_along(ENTRIES[entry], HEAVY) == ""


def test_config_and_events_need_neither_torch_nor_numpy() -> None:
    assert brought_along(["stapo_core.config", "stapo_core.events"], (*HEAVY, "numpy")) == ""


def test_the_probe_finds_what_a_page_and_a_module_bring_along(tmp_path: Path) -> None:
    page = tmp_path / "page.py"
    page.write_text("import streamlit as st\ndef f():\n    from stapo_core import batch\nst.title(1 / 0)\n")
    assert brought_along([str(page)], HEAVY) == "torch"
    assert brought_along(["api.lifecycle"], ("pydantic", "enum", "torch")) == "enum"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the rooms in which imports may be planted."""
    folder = tmp_path_factory.mktemp("checkout")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def contracts() -> list[dict[str, str]]:
    found = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert isinstance(found, list)
    return found


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([str(program), "--no-logo"], cwd=folder, capture_output=True, text=True, check=False)


def brought_along(names: list[str], heavy: tuple[str, ...]) -> str:
    command = [sys.executable, "-c", PROBE, ",".join(heavy), *names]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
