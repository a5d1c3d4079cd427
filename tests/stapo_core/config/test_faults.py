"""A config that cannot work is refused with the field as it was written and a value that would work."""

from __future__ import annotations

import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.build import BadInput
from stapo_core.config import Algorithm, Grader, RunConfig, Strict
from stapo_core.config.faults import Fault, find_faults
from tests.stapo_core.test_train import run
from tests.stapo_core.tiny import make_run_folder, read_events

BASE = {"model": "m", "training_file": "t", "grader": {"type": "string_check", "reference": "x", "operation": "eq"}}
KNOWN = [str(member().kind) for member in typing.get_args(typing.get_args(Algorithm)[0])]


def faults(train: dict[str, Any], **change: Any) -> list[Fault]:
    with pytest.raises(ValidationError) as caught:
        RunConfig.model_validate({**BASE, "train": train, **change})
    return find_faults(caught.value, RunConfig)


BAD: dict[str, tuple[dict[str, Any], str, list[str]]] = {
    "a group of one": ({"batch": {"group_size": 1}}, "train.batch.group_size", ["equal to 2", "8, works"]),
    "mini-batches that do not divide": (
        {"batch": {"num_prompts": 10, "num_minibatches": 4}},
        "train.batch",
        ["num_minibatches 4 does not divide num_prompts 10", "[1, 2, 5, 10]"],
    ),
    "an unknown algorithm": ({"algorithm": {"kind": "ppo"}}, "train.algorithm.kind", ["'ppo'", *map(repr, KNOWN)]),
    "tau at 1": (
        {"algorithm": {"kind": "stapo", "tau_p": 1.0}},
        "train.algorithm.tau_p",
        ["less than 1", "0.002, works"],
    ),
    "tau at 0": (
        {"algorithm": {"kind": "full_mask", "tau_p": 0}},
        "train.algorithm.tau_p",
        ["greater than 0", "0.002"],
    ),
    "a quantile above 1": (
        {"algorithm": {"kind": "negative", "entropy_quantile": 1.5}},
        "train.algorithm.entropy_quantile",
        ["less than 1", "(given: 1.5)", "0.75, works"],
    ),
    "responses larger than a micro-batch": (
        {"batch": {"max_tokens_per_microbatch": 64}},
        "train",
        ["max_tokens_per_microbatch 64", "at least 3072"],
    ),
    "a field of another algorithm": (
        {"algorithm": {"kind": "grpo", "tau_p": 0.1}},
        "train.algorithm.tau_p",
        ["no such field"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_setting_that_cannot_work_is_named_with_one_that_would(name: str) -> None:
    train, param, words = BAD[name]

    (fault,) = faults(train)

    assert fault.param == param
    assert [word for word in words if word not in fault.message] == []


def test_what_is_named_as_working_works() -> None:
    for train in (
        {"batch": {"group_size": 2}},
        {"batch": {"num_prompts": 10, "num_minibatches": 5}},
        *({"algorithm": {"kind": kind}} for kind in KNOWN),
        {"algorithm": {"kind": "stapo", "tau_p": 0.002}},
    ):
        RunConfig.model_validate({**BASE, "train": train})


def test_faults_inside_a_list_and_of_the_whole_config_have_paths_too() -> None:
    one = {"name": "a", "file": "f"}

    (bad_name,) = faults({}, validation_files=[one, one | {"name": "A B"}])
    (twice,) = faults({}, validation_files=[one, one])
    (missing,) = faults({}, grader={"type": "numeric"})

    assert bad_name.param == "validation_files.1.name"
    assert (twice.param, "'a-2'" in twice.message) == ("", True)
    assert str(missing) == "grader.reference: it is missing; add it"


def refused(run_dir: Path) -> BadInput:
    """The refusal of a run whose weights cannot be read: it came before any model was loaded."""
    (run_dir.parent / "model" / "model.safetensors").write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        run(run_dir)
    return caught.value


@pytest.mark.parametrize(
    ("prompt", "response", "param", "works"),
    [(8, 121, "max_response_tokens", "at most 120"), (128, 1, "max_prompt_tokens", "at most 127")],
)
def test_more_than_the_models_context_is_refused_before_the_model_loads(
    tmp_path: Path, prompt: int, response: int, param: str, works: str
) -> None:
    batch = {"num_prompts": 4, "group_size": 4, "max_tokens_per_microbatch": 512}
    sampling = {"max_prompt_tokens": prompt, "max_response_tokens": response}

    error = refused(make_run_folder(tmp_path, batch=batch, sampling=sampling))

    assert error.param == f"train.sampling.{param}"
    assert works in str(error)


def test_a_prompt_longer_than_the_limit_is_refused_before_the_model_loads(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('\n{"prompt": "1+1+1+1+1=", "answer": "5"}')

    error = refused(run_dir)

    assert error.param == "training_file"
    assert "line 25" in str(error)
    assert "10 tokens" in str(error)


def test_the_process_refuses_a_bad_config_without_loading_torch(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, algorithm={"kind": "stapo", "tau_p": 2})
    command = [sys.executable, "-X", "importtime", "-m", "stapo_core", str(run_dir)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    (event,) = read_events(run_dir)
    assert done.returncode == 78
    assert " torch\n" not in done.stderr
    assert (event["type"], event["param"], event["retryable"]) == ("failed", "train.algorithm.tau_p", False)
    assert "0.002, works" in event["message"]


def test_a_fault_behind_a_key_is_found_at_the_path_that_was_written() -> None:
    class Several(Strict):
        graders: dict[str, Grader]

    with pytest.raises(ValidationError) as caught:
        Several.model_validate({"graders": {"numeric": {"type": "math", "reference": 1}}})

    (fault,) = find_faults(caught.value, Several)
    assert fault.param == "graders.numeric.reference"
