"""Completion in real shells, and the page that tells scripts what to expect."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from client import cli
from stapo_core.events import EXIT_BAD_CONFIG, EXIT_STOPPED

STAPO = Path(sys.executable).with_name("stapo")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "command-line.md"
COMMANDS = sorted(get_command(cli.app).commands)  # type: ignore[attr-defined]  # it is a group


def ask(shell: str, **words: str) -> str:
    """What the shell's completion is answered."""
    env = os.environ | {"_STAPO_COMPLETE": f"complete_{shell}", **words}
    return subprocess.run([STAPO], env=env, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_is_given_a_script_that_asks_us_for_the_rest(shell: str) -> None:
    env = os.environ | {"_STAPO_COMPLETE": f"source_{shell}"}
    script = subprocess.run([STAPO], env=env, capture_output=True, text=True, check=True).stdout
    assert f"_STAPO_COMPLETE=complete_{shell}" in script


def test_bash_completes_commands_and_options() -> None:
    assert ask("bash", COMP_WORDS="stapo su", COMP_CWORD="1").split() == ["submit"]
    assert sorted(ask("bash", COMP_WORDS="stapo ", COMP_CWORD="1").split()) == COMMANDS
    assert ask("bash", COMP_WORDS="stapo jobs --st", COMP_CWORD="2").split() == ["--status"]


def test_zsh_completes_commands() -> None:
    assert '"submit"' in ask("zsh", _TYPER_COMPLETE_ARGS="stapo su")


def test_installing_it_makes_bash_know_the_command(tmp_path: Path) -> None:
    env = os.environ | {"HOME": str(tmp_path)}
    install = f"{STAPO} --install-completion; exit $?"
    subprocess.run(["bash", "-c", install], env=env, check=True, capture_output=True)
    known = subprocess.run(
        ["bash", "--norc", "-c", "source ~/.bashrc; complete -p stapo"], env=env, capture_output=True, text=True
    )
    assert known.returncode == 0, known.stderr
    assert "-F _stapo_completion" in known.stdout


def test_the_page_tells_of_every_command_and_exit_code() -> None:
    page = PAGE.read_text()
    assert sorted(re.findall(r"^\| `stapo (\w+)", page, re.MULTILINE)) == COMMANDS
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    own = {cli.EXIT_FAILED, cli.EXIT_JOB_DID_NOT_SUCCEED, cli.EXIT_INTERRUPTED, EXIT_STOPPED, EXIT_BAD_CONFIG}
    assert told == {0, 2} | own


def test_every_command_that_reads_speaks_json() -> None:
    commands = get_command(cli.app).commands  # type: ignore[attr-defined]  # it is a group
    silent = {name for name, each in commands.items() if not any("--json" in option.opts for option in each.params)}
    assert silent == {"up", "demo"}
