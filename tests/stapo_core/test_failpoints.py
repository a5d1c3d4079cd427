"""A failpoint does what a file tells it to, to one process alone, and nothing at all when nobody asked."""

from __future__ import annotations

import errno
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stapo_core.failpoints import PASSED, PLACES, VARIABLE, failpoint

ROOT = Path(__file__).parents[2]
PASS = "import sys; from stapo_core.failpoints import failpoint; failpoint('updated'); print('went on')"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    return tmp_path


def passed(folder: Path) -> list[str]:
    paths = sorted((folder / PASSED).glob("*"))
    return [path.name.split("-")[2] + " " + path.read_text() for path in paths]


def test_every_place_stands_in_the_code_once_and_no_other() -> None:
    sources = [path for room in ("api", "worker", "stapo_core") for path in (ROOT / room).rglob("*.py")]
    found = [name for path in sources for name in re.findall(r'failpoint\("(\w+)"\)', path.read_text())]
    assert sorted(found) == sorted(PLACES)


def test_nothing_happens_where_no_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "claimed").write_text("raise ENOSPC")
    failpoint("claimed")
    assert [path.name for path in tmp_path.iterdir()] == ["claimed"]


def test_a_place_that_is_not_armed_is_passed_without_a_trace(folder: Path) -> None:
    failpoint("claimed")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EFBIG", "EIO"])
def test_an_error_of_the_disk_is_raised_once(folder: Path, name: str) -> None:
    (folder / "claimed").write_text(f"raise {name}")
    with pytest.raises(OSError, match="failpoint claimed") as raised:
        failpoint("claimed")
    assert raised.value.errno == getattr(errno, name)
    failpoint("claimed")
    assert passed(folder) == [f"claimed raise {name}"]


def test_the_nth_pass_can_be_meant(folder: Path) -> None:
    (folder / "claimed").write_text("raise EIO @3")
    failpoint("claimed")
    failpoint("claimed")
    with pytest.raises(OSError, match="claimed"):
        failpoint("claimed")
    assert passed(folder) == ["claimed raise EIO @1"]


def test_two_processes_that_come_by_take_one_arming_once(folder: Path) -> None:
    (folder / "updated").write_text("kill")
    processes = [subprocess.Popen([sys.executable, "-c", PASS], stdout=subprocess.PIPE, cwd=ROOT) for _ in range(2)]
    assert sorted(process.wait(60) for process in processes) == [-signal.SIGKILL, 0]
    for process in processes:
        process.communicate()


def test_a_process_can_be_suspended_where_it_stands(folder: Path) -> None:
    (folder / "updated").write_text("stop")
    with subprocess.Popen([sys.executable, "-c", PASS], stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        while not (folder / PASSED).exists() or process.poll() is not None:
            pass
        while Path(f"/proc/{process.pid}/stat").read_text().split()[2] != "T":
            pass
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=60)[0] == "went on\n"


def test_a_process_whose_files_may_not_grow_passes_and_is_taken_down_as_any_other(folder: Path) -> None:
    (folder / "updated").write_text("sleep 0")
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY)); " + PASS
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, cwd=ROOT, text=True, timeout=60)
    assert (done.stdout, passed(folder)) == ("went on\n", ["updated sleep 0"])
