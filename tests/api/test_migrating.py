"""docs/migrating.md: its Python is run from top to bottom, and what it says is refused is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from api.reference import DOCS
from tests.api.conftest import ROWS, Service, to_jsonl
from tests.api.population import QuickWorker
from tests.api.streams import headers_of

PAGE = (DOCS / "migrating.md").read_text()
BLOCKS = re.findall(r"^```python( after the job)?\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_the_pages_python_runs_from_top_to_bottom(
    service: Service, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (service.settings.models_dir / "tiny").rename(service.settings.models_dir / "stapo-demo-base")
    (tmp_path / "problems.jsonl").write_bytes(to_jsonl(ROWS * 7))
    monkeypatch.chdir(tmp_path)
    worker = QuickWorker(service.database, service.settings)
    key = headers_of(service)["Authorization"].removeprefix("Bearer ")
    names: dict[str, Any] = {"STAPO": server, "STAPO_API_KEY": key}
    with worker.answering():
        for after_the_job, block in BLOCKS:
            if after_the_job:
                worker.end_jobs()
            exec(compile(block, "docs/migrating.md", "exec"), names)  # noqa: S102
    assert len(BLOCKS) > 7
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "['stapo-demo-base']"
    assert said[1] == "1.0"
    assert said[-1] == "model_not_found model"
    assert names["job"].status == "succeeded"
    assert (tmp_path / "my-model" / "config.json").is_file()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"method": {"type": "supervised"}}, "method.type"),
        ({"integrations": [{"type": "wandb"}]}, "integrations"),
        (
            {"method": {"type": "reinforcement", "reinforcement": {"hyperparameters": {"reasoning_effort": "low"}}}},
            "method.reinforcement.hyperparameters.reasoning_effort",
        ),
    ],
)
def test_what_is_not_there_is_refused_by_name(service: Service, change: dict[str, Any], named: str) -> None:
    answer = service.client.post("/v1/fine_tuning/jobs", json=service.job_body() | change)
    assert answer.status_code == 422
    assert named in [fault["pointer"][1:].replace("/", ".") for fault in answer.json()["errors"]]
