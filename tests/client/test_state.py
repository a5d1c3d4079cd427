"""Where the state folder lies, who may pass, and that nobody can slip a folder under our sockets."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from client.process import Account, StartError
from client.state import default_home, prepare_home, socket_folder

STRANGER = Account(65534, 65534)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_the_variable_goes_before_every_default(tmp_path: Path) -> None:
    assert default_home({"STAPO_HOME": str(tmp_path)}) == tmp_path


def test_root_has_a_system_folder_and_a_user_a_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_home({}) == Path("/var/lib/stapo")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert default_home({"XDG_DATA_HOME": "/data"}) == Path("/data/stapo")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert default_home({}) == Path("/home/somebody/.local/share/stapo")


def test_a_new_state_folder_is_closed_to_everybody_else(tmp_path: Path) -> None:
    prepare_home(tmp_path / "new", None)
    assert mode(tmp_path / "new") == 0o700


def test_the_servers_account_may_pass_through_and_not_look(home: Path) -> None:
    home.chmod(0o700)
    prepare_home(home, STRANGER)
    assert mode(home) == 0o711


def test_a_closed_folder_above_is_named_and_left_closed(home: Path) -> None:
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(StartError, match=rf"cannot pass through {closed}"):
        prepare_home(closed / "state", STRANGER)
    assert mode(closed) == 0o700


def test_a_state_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartError, match="Name another with STAPO_HOME"):
        prepare_home(tmp_path / "file" / "state", None)


def test_sockets_lie_in_the_state_folder_where_the_path_is_short(home: Path) -> None:
    folder = socket_folder(home, "postgres", None)
    assert folder == home / "sockets" / "postgres"
    assert mode(folder) == mode(folder.parent) == 0o700


def test_a_link_in_place_of_our_socket_folder_is_refused(home: Path) -> None:
    (home / "elsewhere").mkdir()
    (home / "sockets").symlink_to(home / "elsewhere")
    with pytest.raises(StartError, match="Remove it"):
        socket_folder(home, "postgres", None)


def test_a_socket_folder_that_others_may_write_is_refused(home: Path) -> None:
    (home / "sockets").mkdir()
    (home / "sockets").chmod(0o777)
    with pytest.raises(StartError, match="Remove it"):
        socket_folder(home, "postgres", None)
