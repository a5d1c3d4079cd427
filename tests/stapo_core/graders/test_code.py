"""The code grader: known programs, ways to cheat, limits, and where a program stands in a response."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stapo_core.config.graders.programs import CodeGrader
from stapo_core.graders import GraderPool, build_grader
from stapo_core.graders.programs import last_block
from stapo_core.graders.score import Sample, Score

TESTS = ["assert f(2, 3) == 5", "assert f(-1, 1) == 0"]
RIGHT = "def f(x, y): return x + y"


def grade(pool: GraderPool, *programs: str, tests: Any = TESTS) -> list[Score]:
    return pool.judge([Sample({"tests": tests}, program) for program in programs]).total


@pytest.fixture(scope="module")
def whole() -> Iterator[GraderPool]:
    """All tests must pass, and the whole text is the program."""
    pool = build_grader(CodeGrader(type="code", program="whole_text", timeout_s=20.0), allows_user_code=True)
    yield pool
    pool.close()


@pytest.fixture(scope="module")
def share() -> Iterator[GraderPool]:
    config = CodeGrader(type="code", program="whole_text", reward="share", timeout_s=20.0)
    pool = build_grader(config, allows_user_code=True)
    yield pool
    pool.close()


def test_right_programs_pass_and_wrong_ones_do_not(whole: GraderPool) -> None:
    programs = [RIGHT, "f = int.__add__", "f = lambda x, y: y - -x", "def f(x, y): return x - y", "def g(): pass"]
    assert grade(whole, *programs) == [Score(1.0), Score(1.0), Score(1.0), Score(0.0), Score(0.0)]


def test_a_program_that_is_no_python_or_raises_gets_nothing_and_is_no_error(whole: GraderPool) -> None:
    programs = ["def f(x, y) return", "raise ValueError", "def f(x, y): return x / 0", "", "\0", "import nothing"]
    assert grade(whole, *programs) == [Score(0.0)] * 6


def test_asserts_hold_as_they_hold_in_python(share: GraderPool) -> None:
    tests = ["assert f([])", "assert not g([])", "assert h(1) is True"]
    true = "import re\nf = lambda x: re.match('a', 'ab')\ng = lambda x: x\nh = lambda x: x == 1"
    equal = "f = lambda x: 'yes'\ng = lambda x: None\nh = lambda x: 1"
    assert grade(share, true, equal, tests=tests) == [Score(1.0), Score(2 / 3)]


def test_the_share_of_tests_that_pass_is_given(share: GraderPool) -> None:
    tests = [*TESTS, {"input": "4 5", "output": "9"}, {"input": "1 1", "output": "2"}]
    program = "def f(x, y): return 5\nif __name__ == '__main__': print(sum(map(int, input().split())))"
    assert grade(share, program, RIGHT, tests=tests) == [Score(0.75), Score(0.5)]


def test_whole_runs_are_compared_by_what_they_print(whole: GraderPool) -> None:
    tests = [{"input": "3\n1 2 3\n", "output": "6\n"}, {"input": "1\n7\n", "output": "7\n"}]
    programs = [
        "input(); print(sum(map(int, input().split())))",
        "import sys; print(sum(map(int, sys.stdin.read().split()[1:])))",
        "print(6)",
        "import sys; input(); print(sum(map(int, input().split()))); sys.exit(1)",
        "import os; print(6, flush=True); os._exit(0)",
    ]
    assert [score.value for score in grade(whole, *programs, tests=tests)] == [1.0, 1.0, 0.0, 0.0, 0.0]


CHEATS = {
    "leaves as if all were well": "import sys; sys.exit(0)",
    "leaves at once": "import os; os._exit(0)",
    "leaves from the call": "import os\ndef f(x, y): os._exit(0)",
    "prints that it passed": "print('passed'); print('OK'); print('1.0')",
    "equals everything": """
class Any:
    def __eq__(self, other): return True
    __hash__ = None
f = lambda x, y: Any()""",
    "is a number that equals everything": """
class Any(int):
    def __eq__(self, other): return True
    __hash__ = None
f = lambda x, y: Any()""",
    "leaves a trap for the end": "import atexit, os; atexit.register(os.write, 4, b'{\"value\": true}')",
    "answers in advance": """
import os
os.write(4, b'{"raised": null}\\n' + b'{"value": true}\\n' * 99)
os._exit(0)""",
    "answers with a score": 'import os\nos.write(4, b\'{"score": 1.0, "error": null}\\n\' * 9)\nos._exit(0)',
    "replaces what writes the answers": """
import json
json.dumps = lambda *_: '{"value": true}'
f = lambda x, y: 1""",
    "replaces what evaluates": "import builtins\nbuiltins.eval = builtins.compile = lambda *_, **__: True",
    "reads the caller's frames for what is expected": """
import sys
def f(x, y):
    frame = sys._getframe()
    while frame:
        for value in [*frame.f_locals.values(), *frame.f_globals.values()]:
            for line in str(value).splitlines():
                if '==' in line and f'f({x}, {y})' in line:
                    return eval(line.split('==')[1])
        frame = frame.f_back""",
    "reads all that is in memory for what is expected": """
import gc
def f(x, y):
    for held in gc.get_objects():
        if isinstance(held, (list, tuple, dict)) and f'assert f({x}, {y})' in str(held)[:9999]:
            return 5""",
    "looks for the tests in files": """
import os
f = lambda x, y: [open(name).read() for name in os.listdir('/proc/self/fd')]""",
    "makes an object that unpickles to anything": """
class Any:
    def __reduce__(self): return (eval, ('5',))
f = lambda x, y: Any()""",
    "makes asserts pass": "import builtins\nbuiltins.AssertionError = GeneratorExit\nf = lambda x, y: 1",
}


@pytest.mark.parametrize("cheat", CHEATS)
def test_a_program_that_cheats_gets_nothing(whole: GraderPool, share: GraderPool, cheat: str) -> None:
    assert grade(whole, CHEATS[cheat])[0].value == 0.0
    assert grade(share, CHEATS[cheat])[0].value == 0.0


def test_a_program_that_takes_too_much_gets_nothing_and_is_counted_by_kind_and_is_no_error() -> None:
    pool = build_grader(CodeGrader(type="code", program="whole_text", timeout_s=1.0), allows_user_code=True)
    programs = [
        "while True: pass",
        "held = []\nwhile True: held.append(bytes(2**26))",
        "while True: print('x' * 10**6)",
        f"x = '{'x' * 256_000}'",
    ]
    try:
        scores = grade(pool, *programs)
    finally:
        pool.close()
    assert [score.note for score in scores] == ["timeout", "memory", "output", "source_too_long"]
    assert [(score.value, score.error) for score in scores] == [(0.0, None)] * 4


def test_tests_that_cannot_be_read_are_an_error_of_the_row(whole: GraderPool) -> None:
    assert grade(whole, RIGHT, tests=["assert f(1, 1) < 3"]) == [Score(0.0, "tests_unreadable")]


def test_equal_programs_are_judged_once_and_each_gets_its_score(whole: GraderPool) -> None:
    assert [score.value for score in grade(whole, RIGHT, "f = 1", RIGHT, "f = 1")] == [1.0, 0.0, 1.0, 0.0]


def test_the_template_may_wrap_the_response() -> None:
    config = CodeGrader(type="code", program="whole_text", input="f = lambda x, y: {{sample.output_text}}")
    pool = build_grader(config, allows_user_code=True)
    try:
        assert [score.value for score in grade(pool, "x+y", "(y)+x", "x*y", "5)", "")] == [1.0, 1.0, 0.0, 0.0, 0.0]
    finally:
        pool.close()


def test_the_last_fenced_block_is_the_program() -> None:
    assert last_block("so:\n```python\nx = 1\n```\nor\n```\ny = 2\n```\ndone") == "y = 2\n"
    assert last_block("````md\n```\ninner\n```\n````\n") == "```\ninner\n```\n"
    assert last_block("~~~ py\nz = 3\n~~~") == "z = 3\n"
    assert last_block("cut:\n```python\nx = 1\n") == "x = 1\n"
    assert last_block("no block") == ""


def test_a_response_without_a_block_gets_nothing_without_being_run() -> None:
    pool = build_grader(CodeGrader(type="code", timeout_s=20.0), allows_user_code=True)
    try:
        assert grade(pool, RIGHT, f"```\n{RIGHT}\n```") == [Score(0.0), Score(1.0)]
    finally:
        pool.close()


def test_the_end_of_the_pool_ends_a_running_program_and_removes_its_folder() -> None:
    pool = build_grader(CodeGrader(type="code", program="whole_text", timeout_s=100.0), allows_user_code=True)
    others = _servers()
    pool.begin(Sample({"tests": TESTS}, "while True: pass"))
    deadline = time.monotonic() + 60.0
    caged: list[int] = []
    while not caged and time.monotonic() < deadline:
        time.sleep(0.02)
        started = {pid: folder for pid, folder in _servers().items() if pid not in others}
        caged = [child for pid in started for child in _children(pid)]
    assert caged
    pool.close()
    while any(_is_alive(pid) for pid in (*started, *caged)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in (*started, *caged) if _is_alive(pid)]
    assert not [folder for folder in started.values() if Path(folder).exists()]


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_killed_fork_server_costs_no_program_its_score(whole: GraderPool, is_idle: bool) -> None:
    assert grade(whole, RIGHT) == [Score(1.0)]
    killed = _servers()
    for pid in killed:
        os.kill(pid, signal.SIGKILL if is_idle else signal.SIGSTOP)
        if not is_idle:  # it dies when the next program has been sent to it
            threading.Timer(1.0, os.kill, (pid, signal.SIGKILL)).start()
    assert grade(whole, "f = lambda a, b: a + b") == [Score(1.0)]
    for folder in killed.values():  # a server that is killed together with its judge cannot remove its own
        shutil.rmtree(folder, ignore_errors=True)


def _servers() -> dict[int, str]:
    """Fork servers below this process, with their folders."""
    found = {}
    for entry in Path("/proc").iterdir():
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            judge = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            parent = int(Path(f"/proc/{judge}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
        folders = [word.decode() for word in words if b"/stapo-sandbox-" in word]
        if folders and parent == os.getpid():
            found[int(entry.name)] = folders[0]
    return found


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
