"""The project's own Python files, and what must hold of the text of each. Each rule returns its complaints."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("api", "worker", "dashboard", "client", "stapo_core")

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60
NAMES_FOR_NOTHING = {"utils", "util", "helpers", "common", "misc", "manager", "base"}

# Spelt in two halves, so that this file is not found by its own rule.
UNFINISHED_WORDS = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "Not" + "ImplementedError", "for" + " now")
UNFINISHED = re.compile("|".join(rf"\b{word}\b" for word in (*UNFINISHED_WORDS, "place" + "holder(?!=)")))
RUNS_CODE_FROM_DATA = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
}
FORBIDDEN_CALLS = {
    "torch.load": "torch.load reads pickles; checkpoints are safetensors",
    "torch.save": "torch.save writes pickles; checkpoints are safetensors",
    "yaml.load": "yaml.load makes objects from data; use yaml.safe_load",
    "yaml.unsafe_load": "yaml.unsafe_load makes objects from data; use yaml.safe_load",
    "yaml.full_load": "yaml.full_load makes objects from data; use yaml.safe_load",
    "os.system": "os.system starts a shell; use subprocess with a list",
    "os.popen": "os.popen starts a shell; use subprocess with a list",
    "eval": "eval runs data as code",
    "exec": "exec runs data as code",
}
CAGED = Path("stapo_core/sandbox/inmate.py")
"""Runs inside the sandbox, where foreign programs belong, and nowhere else."""
FORBIDDEN_ARGUMENTS = {"shell": True, "trust_remote_code": True, "weights_only": False}


def source_files() -> list[Path]:
    """Every Python file of the rooms; migrations and the client's types are generated and keep their own shape."""
    files = [file for room in ROOMS for file in (ROOT / room).rglob("*.py")]
    return sorted(file for file in files if "migrations" not in file.parts and file != ROOT / "client" / "objects.py")


def test_files() -> list[Path]:
    return sorted((ROOT / "tests").rglob("*.py"))


def other_files() -> list[Path]:
    """What else people write here: pages, images, manifests, documents."""
    patterns = (
        "dashboard/**/*.js",
        "dashboard/**/*.css",
        "deploy/**/*",
        ".ci/*",
        "*.md",
        "*.yml",
        "*.toml",
        "Makefile",
    )
    return sorted({file for pattern in patterns for file in ROOT.glob(pattern) if is_text(file)})


def is_text(file: Path) -> bool:
    return file.is_file() and file.suffix != ".pyc" and "secrets" not in file.parts


def files_are_short(path: Path, text: str) -> list[str]:
    """A file has at most 400 lines."""
    lines = text.count("\n")
    return [f"{path}: {lines} lines; split it"] if lines > MAX_FILE_LINES else []


def functions_are_short(path: Path, text: str) -> list[str]:
    """A function has at most 60 lines."""
    return [
        f"{path}:{node.lineno} {node.name}: {length(node)} lines; split it"
        for node in functions(text)
        if length(node) > MAX_FUNCTION_LINES
    ]


def a_file_says_what_it_knows(path: Path, text: str) -> list[str]:
    """A header docstring opens every file."""
    return [] if ast.get_docstring(ast.parse(text)) else [f"{path}: no header docstring"]


def a_name_is_a_noun(path: Path, text: str) -> list[str]:
    """No drawer for everything; and in the dashboard, whose folder is on the import path, no name of another module."""
    complaints = [f"{path}: {path.stem} says nothing"] if path.stem in NAMES_FOR_NOTHING else []
    taken = set(sys.stdlib_module_names) | set(ROOMS)
    if path.parts[0] == "dashboard" and len(path.parts) == 2 and path.stem in taken - {"__init__"}:
        complaints.append(f"{path}: hides the module {path.stem}")
    return complaints


def data_never_becomes_code(path: Path, text: str) -> list[str]:
    """No pickle in any form, no unsafe YAML, no shell, no code from a model's folder."""
    complaints = []
    for node in ast.walk(ast.parse(text)):
        where = f"{path}:{getattr(node, 'lineno', 0)}"
        complaints += [
            f"{where}: imports {name}" for name in imported(node) if name.split(".")[0] in RUNS_CODE_FROM_DATA
        ]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            is_caged = path == CAGED and called in ("eval", "exec")
            complaints += [f"{where}: {FORBIDDEN_CALLS[called]}"] if called in FORBIDDEN_CALLS and not is_caged else []
            complaints += [
                f"{where}: {word.arg}={word.value.value}"
                for word in node.keywords
                if isinstance(word.value, ast.Constant)
                and word.arg in FORBIDDEN_ARGUMENTS
                and word.value.value is FORBIDDEN_ARGUMENTS[word.arg]
            ]
    return complaints


def work_is_finished(path: Path, text: str) -> list[str]:
    """No word that marks unfinished work."""
    lines = enumerate(text.splitlines(), 1)
    return [f"{path}:{number}: {line.strip()}" for number, line in lines if UNFINISHED.search(line)]


def no_test_is_skipped(path: Path, text: str) -> list[str]:
    """No skip and no expected failure, as a call or as a mark: each hides something from somebody."""
    names = re.compile(
        r"(pytest|unittest)\.(mark\.)?(skip|skipif|skipIf|skipUnless|xfail|importorskip|expectedFailure)"
    )
    nodes = (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute))
    return [f"{path}:{node.lineno}: {ast.unparse(node)}" for node in nodes if names.fullmatch(ast.unparse(node))]


def imported(node: ast.AST) -> Iterator[str]:
    """The modules that an import statement names."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""


def functions(text: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


SOURCE_RULES = (
    files_are_short,
    functions_are_short,
    a_file_says_what_it_knows,
    a_name_is_a_noun,
    data_never_becomes_code,
    work_is_finished,
)
TEST_RULES = (files_are_short, work_is_finished, no_test_is_skipped)
