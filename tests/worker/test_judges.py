"""A run whose grader asks a model: the trainer is told where the list of judges is, and no key is left anywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stapo_core.config import RunConfig
from stapo_core.graders.judges import JUDGES_FILE
from tests.stapo_core.graders.endpoint import KEY, Handler, completion, reply, serve
from tests.stapo_core.tiny import make_run_folder, read_events
from worker.process import child_environment, start_trainer

JUDGE = {"type": "score_model", "model": "judge", "input": [{"role": "user", "content": "{{sample.output_text}}"}]}


def test_a_trainer_asks_its_judge_and_its_folder_and_environment_hold_no_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run_folder(tmp_path / "job", num_steps=1, evaluation={"every_steps": 0})
    values = json.loads((run_dir / "config.json").read_text()) | {"grader": JUDGE, "validation_file": None}
    environments: list[bytes] = []

    def answer(handler: Handler, number: int) -> None:
        if not environments:
            environments.append(Path(f"/proc/{trainer.process.pid}/environ").read_bytes())
        said = endpoint.bodies[number]["messages"][0]["content"]
        reply(handler, 200, completion(json.dumps({"result": float(any(each.isdigit() for each in said))})))

    with serve(answer) as endpoint:
        monkeypatch.setenv(JUDGES_FILE, str(endpoint.list_judges(tmp_path)))
        trainer = start_trainer(run_dir, RunConfig.model_validate(values), fence=1)
        trainer.wait(120.0)
        code = trainer.exit_code()
        trainer.close()
    assert code == 0, (run_dir / "trainer.log").read_text()
    (step,) = [event for event in read_events(run_dir) if event["type"] == "step"]
    assert 0.0 < step["metrics"]["reward/mean"] < 1.0
    assert step["metrics"]["grader/error_share"] == 0.0
    assert set(endpoint.keys) == {f"Bearer {KEY}"}
    assert f"{JUDGES_FILE}={tmp_path / 'judges.json'}".encode() in environments[0]
    assert KEY.encode() not in environments[0]
    left = [path for path in run_dir.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert left == []


def test_a_child_whose_grader_asks_nobody_is_not_told_of_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(JUDGES_FILE, "/some/list.json")
    assert JUDGES_FILE not in child_environment()
