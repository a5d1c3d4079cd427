"""The browser of the tests is found where people have it, and its absence is a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.chromium import NoBrowser, find_browser, install_browser


def make_program(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_browser_on_path_goes_before_playwrights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = make_program(tmp_path / "bin" / "google-chrome")
    make_program(tmp_path / "cache" / "chromium-1200" / "chrome-linux" / "chrome")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "cache"))
    assert find_browser() == own


def test_playwrights_newest_browser_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_program(tmp_path / "chromium-1200" / "chrome-linux" / "chrome")
    newest = make_program(tmp_path / "chromium-1201" / "chrome-linux64" / "chrome")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path))
    assert find_browser() == newest


def test_an_installation_that_fails_says_what_was_run_and_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(tmp_path / "apt-get", "echo no network today; exit 100")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    with pytest.raises(NoBrowser, match=r"(?s)apt-get update.*no network today.*Install Chromium yourself"):
        install_browser()


def test_root_gets_debians_package_after_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = f'echo "$@" >> {tmp_path}/asked; [ "$1" = update ] || /bin/ln -s /bin/true {tmp_path}/chromium'
    make_program(tmp_path / "apt-get", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert install_browser() == tmp_path / "chromium"
    first, second = (tmp_path / "asked").read_text().splitlines()
    assert first.startswith("update")
    assert second.split()[0] == "install"
    assert second.split()[-1] == "chromium"
