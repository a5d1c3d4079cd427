"""What the health checks ask for is there to answer: each path of the API is in its OpenAPI document."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from api.main import create_app
from api.settings import Settings
from tests.deploy.documents import read_compose, read_dockerfile, read_kubernetes
from tests.deploy.kubernetes_rules import containers

API_PORT = 8000


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        database_url="postgresql+psycopg://stapo@127.0.0.1/stapo",
        broker_url="redis://127.0.0.1/0",
    )
    return set(create_app(settings).openapi()["paths"])


def test_the_image_and_the_compose_file_ask_a_path_that_the_api_documents(paths: set[str]) -> None:
    asked = urls(" ".join(read_dockerfile()["api"].arguments("HEALTHCHECK")))
    asked += urls(" ".join(read_compose()["services"]["api"]["healthcheck"]["test"]))
    assert asked == [(API_PORT, "/healthz")] * 2
    assert {path for _, path in asked} <= paths


def test_the_probes_ask_paths_that_the_api_documents(paths: set[str]) -> None:
    api = dict(containers(read_kubernetes()))["stapo-api"]
    asked = {probe["httpGet"]["path"] for name, probe in api.items() if name.endswith("Probe")}
    assert asked == {"/healthz", "/readyz?for=traffic"}
    assert {path.partition("?")[0] for path in asked} <= paths
    assert api["ports"] == [{"name": "http", "containerPort": API_PORT}]


def test_the_dashboard_is_asked_where_streamlit_answers() -> None:
    asked = urls(" ".join(read_dockerfile()["dashboard"].arguments("HEALTHCHECK")))
    assert asked == [(8501, "/_stcore/health")]
    spec = importlib.util.find_spec("streamlit")
    assert spec is not None
    assert spec.origin is not None
    sources = (Path(spec.origin).parent / "web").rglob("*.py")
    assert any("_stcore/health" in source.read_text() for source in sources)


def test_every_port_that_is_asked_is_the_one_that_is_served() -> None:
    stages, services = read_dockerfile(), read_compose()["services"]
    for name, port in (("api", "8000"), ("dashboard", "8501")):
        assert port in " ".join(stages[name].arguments("CMD"))
        assert stages[name].arguments("EXPOSE") == [port]
        assert services[name]["ports"][0].endswith(f":{port}")
    assert services["dashboard"]["environment"]["STAPO_API_URL"] == "http://api:8000"


def urls(text: str) -> list[tuple[int, str]]:
    return [(int(port), path) for port, path in re.findall(r"http://127\.0\.0\.1:(\d+)(/\w+(?:/\w+)*)", text)]
