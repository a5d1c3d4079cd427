"""What a program gives comes back as it was, how it ended is told, and nothing is shared between two programs."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stapo_core.sandbox import landlock
from stapo_core.sandbox.host import MAX_OUTPUT_BYTES, Answer, Broken, Program, Sandbox, find_obstacle


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    started = Sandbox()
    yield started
    started.close()


def test_expressions_are_evaluated_over_the_programs_names(sandbox: Sandbox) -> None:
    source = "def add(x, y): return x + y"
    outcome = sandbox.run(Program(source, 20.0, expressions=("add(2, 3)", "add('a', 'b')", "add(1, 'b')", "nobody")))
    assert outcome.answers == (Answer(5), Answer("ab"), Answer(raised="TypeError"), Answer(raised="NameError"))
    assert (outcome.ended, outcome.code, outcome.raised) == ("by_itself", 0, None)


def test_values_of_every_built_in_kind_come_back_as_they_were(sandbox: Sandbox) -> None:
    values = (
        "None, True, -7, 10**40, 0.1, float('inf'), 1j, 'ä\\0', b'\\xff', [1], (2, [3]), {4: 'x'}, {5}, frozenset({6})"
    )
    (answer,) = sandbox.run(Program("", 20.0, expressions=(f"[{values}]",))).answers
    expected = [
        None, True, -7, 10**40, 0.1, float("inf"), 1j, "ä\0", b"\xff", [1], (2, [3]), {4: "x"}, {5}, frozenset({6}),
    ]  # fmt: skip
    assert answer.value == expected
    assert [type(value) for value in answer.value] == [type(value) for value in expected]


def test_a_value_of_the_programs_own_type_is_not_told(sandbox: Sandbox) -> None:
    source = "class Five(int):\n  def __eq__(self, other): return True\n  __hash__ = None"
    outcome = sandbox.run(Program(source, 20.0, expressions=("Five(5)", "[Five(5)]")))
    assert outcome.answers == (Answer(raised="not_plain"), Answer(raised="not_plain"))


def test_a_program_reads_its_input_and_its_status_is_told(sandbox: Sandbox) -> None:
    source = "import sys\nprint(sum(map(int, sys.stdin.read().split())))\nsys.exit(3)"
    outcome = sandbox.run(Program(source, 20.0, stdin="1 2\n3\n", name="__main__"))
    assert (outcome.stdout, outcome.code, outcome.raised) == ("6\n", 3, "SystemExit")


def test_bound_names_are_values_of_the_host(sandbox: Sandbox) -> None:
    bound = {"item": {"n": [1, 2.5, None, "é"]}}
    outcome = sandbox.run(Program("def last(x): return x['n'][-1]", 20.0, bound=bound, expressions=("last(item)",)))
    assert outcome.answers == (Answer("é"),)


def test_a_large_input_that_is_never_read_holds_nobody_up(sandbox: Sandbox) -> None:
    assert sandbox.run(Program("print(1)", 20.0, stdin="x" * 10**6)).stdout == "1\n"


def test_threads_and_asyncio_work_and_are_waited_for(sandbox: Sandbox) -> None:
    source = (
        "import asyncio, threading, time\n"
        "async def main(): await asyncio.sleep(0.01); print('tasks')\n"
        "asyncio.run(main())\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('threads'))).start()"
    )
    assert sandbox.run(Program(source, 20.0)).stdout == "tasks\nthreads\n"


def test_the_standard_library_and_files_of_its_own_are_within_reach(sandbox: Sandbox) -> None:
    source = (
        "import difflib, tempfile, pathlib\n"
        "with tempfile.NamedTemporaryFile('w+') as file: file.write('kept'); file.seek(0); print(file.read())\n"
        "pathlib.Path('x').write_text('here'); print(pathlib.Path('x').read_text(), difflib.ndiff.__name__)"
    )
    assert sandbox.run(Program(source, 20.0)).stdout == "kept\nhere ndiff\n"


def test_two_programs_share_neither_files_nor_modules(sandbox: Sandbox) -> None:
    sandbox.run(Program("import math; math.pi = 3; open('left', 'w').write('x')", 20.0))
    source = "import math, os, sys\nprint(math.pi == 3, os.listdir(), 'secret' in sys.modules, len(os.environ))"
    assert sandbox.run(Program(source, 20.0)).stdout == "False [] False 0\n"


def test_output_over_the_bound_ends_the_program(sandbox: Sandbox) -> None:
    outcome = sandbox.run(Program(f"print('x' * {2 * MAX_OUTPUT_BYTES})", 20.0))
    assert outcome.ended == "output"
    assert len(outcome.stdout) <= MAX_OUTPUT_BYTES + 2**16


def test_the_program_after_one_that_was_stopped_runs_undisturbed(sandbox: Sandbox) -> None:
    for _ in range(20):  # the word to stop may cross with the word that the program has ended
        assert sandbox.run(Program(f"print('x' * {MAX_OUTPUT_BYTES + 1000})", 20.0)).ended == "output"
        assert sandbox.run(Program("print(1)", 20.0)).stdout == "1\n"


def test_answers_that_the_program_makes_up_are_no_more_than_claims(sandbox: Sandbox) -> None:
    source = 'import os\nos.write(4, b\'{"raised": null}\\n{"value": {"int": "0x5"}}\\nno JSON\\n[]\\n\')\nos._exit(0)'
    outcome = sandbox.run(Program(source, 20.0, expressions=("1", "2", "3")))
    assert outcome.answers == (Answer(5), Answer(raised="unreadable"), Answer(raised="unreadable"))


def test_a_fork_server_that_was_killed_is_noticed_and_leaves_no_program_running() -> None:
    sandbox = Sandbox()
    try:
        os.kill(sandbox._process.pid, signal.SIGKILL)
        sandbox._process.wait()
        with pytest.raises(Broken):
            sandbox.run(Program("", 20.0))
    finally:
        sandbox.close()


def test_the_private_folder_is_gone_after_the_end() -> None:
    sandbox = Sandbox()
    folder = Path(sandbox._folder)
    assert folder.is_dir()
    assert folder.parent == Path(tempfile.gettempdir())
    sandbox.run(Program("import os; os.mkdir('d'); open('d/x', 'w').close()", 20.0))
    sandbox.close()
    assert not folder.exists()


def test_this_machine_has_no_obstacle() -> None:
    assert find_obstacle() is None


def test_without_landlock_the_reason_is_told_and_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "version", lambda: 0)
    monkeypatch.setattr("subprocess.Popen", None)
    assert "the kernel offers no Landlock" in str(find_obstacle())


def test_on_another_processor_the_reason_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert find_obstacle() == "the filter of system calls is written for x86_64, and this machine is aarch64"
