"""The command line goes before the environment, and the environment before the defaults."""

from __future__ import annotations

import pytest

from client.process import StartError
from client.settings import read_settings


def test_the_defaults_are_the_documented_ports() -> None:
    settings = read_settings({"STAPO_HOME": "/s"})
    assert (settings.api_url, settings.dashboard_url) == ("http://127.0.0.1:8000", "http://127.0.0.1:8501")
    assert (settings.database_url, settings.broker_url) == (None, None)


def test_the_command_line_goes_before_the_environment() -> None:
    env = {"STAPO_HOME": "/s", "STAPO_API_PORT": "1", "STAPO_DASHBOARD_PORT": "2"}
    settings = read_settings(env, api_port=3)
    assert (settings.api_port, settings.dashboard_port) == (3, 2)


@pytest.mark.parametrize("text", ["eighty", "-1", "0", "70000", "80.5"])
def test_a_port_that_is_none_is_named(text: str) -> None:
    with pytest.raises(StartError, match=f"STAPO_API_PORT is '{text}'"):
        read_settings({"STAPO_HOME": "/s", "STAPO_API_PORT": text})


@pytest.mark.parametrize("text", ["nan", "inf", "0", "soon"])
def test_a_drain_that_is_no_time_is_named(text: str) -> None:
    with pytest.raises(StartError, match=f"STAPO_DRAIN_S is '{text}'"):
        read_settings({"STAPO_HOME": "/s", "STAPO_DRAIN_S": text})
