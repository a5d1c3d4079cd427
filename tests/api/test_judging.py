"""The platform as its own judge: score_model asks a model that a worker holds, over the API, like any endpoint."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from stapo_core.config import ScoreModelGrader
from stapo_core.graders import build_grader
from stapo_core.graders.judges import JUDGES_FILE
from stapo_core.graders.score import Sample, Score
from stapo_core.warmup import Lessons, build_model, build_tokenizer, teach
from tests.api.conftest import Service

VERDICTS = {"good": '{"result": 1}', "poor": '{"result": 0.25}', "odd": "who knows"}
PATTERN = r'\{"result": [0-9.]+\}|good|poor|odd|who knows|\n'


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has learned what to say of each word, whatever stands in the line before it."""
    folder = tmp_path_factory.mktemp("judge")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(["\n", *VERDICTS, *VERDICTS.values()], PATTERN)
    judge = build_model(tokenizer)
    rng = random.Random(0)

    def draw(num_examples: int) -> list[tuple[str, str]]:
        return [(f"Judge this:\n{word}", VERDICTS[word]) for word in rng.choices(list(VERDICTS), k=num_examples)]

    teach(judge, tokenizer, Lessons(draw, lambda _: 0.0, max_steps=40), lambda *_: None)
    judge.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def list_as_judge(server: str, key: str, folder: Path, **changes: Any) -> str:
    """The operator's list with this platform on it."""
    (folder / "key").write_text(key)
    judge = {"base_url": f"{server}/v1", "model": "tiny", "api_key_file": "key", "response_format": "none"} | changes
    (folder / "judges.json").write_text(json.dumps({"judge": judge}))
    return str(folder / "judges.json")


def judge(*texts: str) -> list[Score]:
    sampling = {"temperature": 0.0, "max_completions_tokens": 4, "seed": 1}
    asked = [{"role": "user", "content": "{{sample.output_text}}"}]
    pool = build_grader(
        ScoreModelGrader.model_validate(
            {"type": "score_model", "model": "judge", "input": asked, "sampling_params": sampling, "timeout_s": 60.0}
        )
    )
    try:
        return pool.judge([Sample({}, text) for text in texts]).total
    finally:
        pool.close()


@pytest.mark.usefixtures("answerer")
def test_a_model_of_this_platform_judges_responses_over_its_own_api(
    service: Service, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = service.client.headers["authorization"].removeprefix("Bearer ")
    monkeypatch.setenv(JUDGES_FILE, list_as_judge(server, key, tmp_path))
    texts = ["good", "poor", "odd", "good", "poor"]
    unreadable = Score(0.0, error="score_unreadable")
    assert judge(*texts) == [Score(1.0), Score(0.25), unreadable, Score(1.0), Score(0.25)]


@pytest.mark.parametrize(
    ("key", "changes"),
    [("sk-of-nobody", {}), (None, {"model": "unknown"}), (None, {"response_format": "json_schema"})],
)
@pytest.mark.usefixtures("answerer")
def test_what_the_api_does_not_take_is_an_error_of_the_judge_and_no_score(
    service: Service,
    server: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    key: str | None,
    changes: dict[str, Any],
) -> None:
    key = key or service.client.headers["authorization"].removeprefix("Bearer ")
    monkeypatch.setenv(JUDGES_FILE, list_as_judge(server, key, tmp_path, **changes))
    assert judge("good") == [Score(0.0, error="refused")]
