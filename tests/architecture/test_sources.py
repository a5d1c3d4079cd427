"""Every source file and every test keeps the habits of the house; each rule refuses its planted fault."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import sources as rules
from tests.architecture.sources import ROOT, functions, length

Rule = Callable[[Path, str], list[str]]

LONG_FUNCTION = "def long() -> None:\n" + "    print()\n" * 60


@pytest.mark.parametrize("rule", rules.SOURCE_RULES, ids=lambda rule: rule.__name__)
def test_every_source_file_keeps_the_rule(rule: Rule) -> None:
    files = rules.source_files()
    assert len(files) > 20
    assert [complaint for file in files for complaint in rule(file.relative_to(ROOT), file.read_text())] == []


@pytest.mark.parametrize("rule", rules.TEST_RULES, ids=lambda rule: rule.__name__)
def test_every_test_file_keeps_the_rule(rule: Rule) -> None:
    files = rules.test_files()
    assert Path(__file__) in files
    assert [complaint for file in files for complaint in rule(file.relative_to(ROOT), file.read_text())] == []


def test_no_page_manifest_or_document_holds_unfinished_work() -> None:
    files = rules.other_files()
    assert {"board.js", "Dockerfile", "docker-compose.yml", "Makefile", "worker.yaml"} <= {file.name for file in files}
    assert [c for file in files for c in rules.work_is_finished(file.relative_to(ROOT), file.read_text())] == []


FAULTS: list[tuple[Rule, str, str]] = [
    (rules.files_are_short, "api/main.py", "x = 1\n" * 401),
    (rules.functions_are_short, "api/main.py", LONG_FUNCTION),
    (rules.functions_are_short, "api/main.py", "class C:\n    async " + LONG_FUNCTION.replace("\n", "\n    ")),
    (rules.a_file_says_what_it_knows, "api/main.py", "import os\n"),
    (rules.a_name_is_a_noun, "api/utils.py", ""),
    (rules.a_name_is_a_noun, "dashboard/calendar.py", ""),
    (rules.a_name_is_a_noun, "dashboard/worker.py", ""),
    (rules.data_never_becomes_code, "worker/runner.py", "import pickle\n"),
    (rules.data_never_becomes_code, "worker/runner.py", "def f():\n    from cloudpickle import loads\n"),
    (rules.data_never_becomes_code, "worker/runner.py", "import torch\nx = torch.load('a.pt', weights_only=True)\n"),
    (rules.data_never_becomes_code, "worker/runner.py", "import yaml\nx = yaml.load(text, yaml.Loader)\n"),
    (rules.data_never_becomes_code, "worker/runner.py", "subprocess.run('ls', shell=True)\n"),
    (rules.data_never_becomes_code, "worker/runner.py", "Model.from_pretrained(path, trust_remote_code=True)\n"),
    (rules.data_never_becomes_code, "worker/runner.py", "load(path, weights_only=False)\n"),
    (rules.data_never_becomes_code, "worker/runner.py", "x = eval(text)\n"),
    *[(rules.work_is_finished, "api/main.py", f"x = 1  # {word}: the rest\n") for word in rules.UNFINISHED_WORDS],
    (rules.no_test_is_skipped, "tests/test_x.py", "import pytest\n@pytest.mark.skipif(True)\ndef test_x(): ...\n"),
    (rules.no_test_is_skipped, "tests/test_x.py", "import pytest\ndef test_x(): pytest.skip('no GPU')\n"),
    (rules.no_test_is_skipped, "tests/test_x.py", "import pytest\nnp = pytest.importorskip('numpy')\n"),
    (rules.no_test_is_skipped, "tests/test_x.py", "import pytest\n@pytest.mark.xfail\ndef test_x(): ...\n"),
]


@pytest.mark.parametrize(("rule", "path", "text"), FAULTS, ids=[f"{r.__name__}: {p}" for r, p, _ in FAULTS])
def test_the_rule_refuses_a_planted_fault(rule: Rule, path: str, text: str) -> None:
    assert rule(Path(path), text)


def test_every_rule_has_a_planted_fault() -> None:
    assert {rule for rule, _, _ in FAULTS} == {*rules.SOURCE_RULES, *rules.TEST_RULES}


def test_every_folder_of_tests_is_a_package() -> None:
    folders = {file.parent for file in rules.test_files()}
    assert sorted(str(f.relative_to(ROOT)) for f in folders if not (f / "__init__.py").is_file()) == []


def test_the_training_loop_fits_in_one_screen() -> None:
    found = {node.name: length(node) for node in functions((ROOT / "stapo_core" / "train.py").read_text())}
    assert found
    assert {name: lines for name, lines in found.items() if lines > 50} == {}
