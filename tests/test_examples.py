"""What examples/ shows is accepted as it stands."""

from __future__ import annotations

import ast
from pathlib import Path

import yaml

from api.schemas import JobCreate
from client.submission import read_mapping
from stapo_core.config import RunConfig
from stapo_core.data import check_rows, read_rows
from stapo_core.graders import item_fields

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_the_job_file_is_a_job_whose_rows_hold_what_its_grader_reads() -> None:
    body = read_mapping(EXAMPLES / "job.yaml")
    job = JobCreate.model_validate(body)
    for name in (body["training_file"], body["validation_file"]):
        assert check_rows(EXAMPLES / name, item_fields(job.method.reinforcement.grader)).num_rows > 0


def test_no_held_out_problem_is_trained_on() -> None:
    trained, held_out = (
        {row["prompt"] for row in read_rows(EXAMPLES / name)} for name in ("sums.jsonl", "sums-held-out.jsonl")
    )
    assert not trained & held_out


def test_the_run_file_is_a_run() -> None:
    RunConfig.model_validate(yaml.safe_load((EXAMPLES / "run.yaml").read_text()))


def test_the_programs_method_is_accepted() -> None:
    module = ast.parse((EXAMPLES / "official_client.py").read_text())
    (method,) = [node.value for node in module.body if isinstance(node, ast.AnnAssign) and node.value]
    JobCreate.model_validate({"model": "m", "training_file": "file-0", "method": ast.literal_eval(method)})
