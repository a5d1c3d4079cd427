"""The loop from end to end on a real model: repeatable, resumable to the bit, stoppable anywhere."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import peft
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file

from stapo_core.build import BadInput, build
from stapo_core.spool import Spool
from stapo_core.train import Outcome, train
from tests.stapo_core.tiny import make_run_folder, make_tokenizer, read_config, read_events

NOT_REPEATABLE = ("speed/", "memory/")


def run(run_dir: Path, should_stop: Callable[[], bool] = lambda: False) -> Outcome:
    spool = Spool(run_dir / "events.jsonl")
    parts = build(read_config(run_dir), run_dir, spool=spool, should_stop=should_stop)
    try:
        return train(parts)
    finally:
        parts.grading.close()
        spool.close()


def metrics(run_dir: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Metrics by kind and step; where a step was done again, what was said last."""
    return {
        (event["type"], event["step"]): {
            key: value for key, value in event["metrics"].items() if not key.startswith(NOT_REPEATABLE)
        }
        for event in read_events(run_dir)
        if event["type"] in ("step", "evaluation")
    }


def final_tensors(run_dir: Path) -> dict[str, Any]:
    folder = sorted((run_dir / "checkpoints").iterdir())[-1]
    tensors = load_file(folder / "trainer" / "state.safetensors")
    for path in folder.glob("*.safetensors"):
        tensors |= load_file(path)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}


class Count:
    """Counts the questions whether to stop, and answers no."""

    def __init__(self) -> None:
        self.number = 0

    def __call__(self) -> bool:
        self.number += 1
        return False


class StopAfter:
    """Asks to stop at the n-th question, and goes on asking."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> bool:
        self.left -= 1
        return self.left < 0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of four steps."""
    run_dir = make_run_folder(tmp_path_factory.mktemp("whole"))
    questions = Count()
    assert run(run_dir, questions) == Outcome(4, "num_steps_reached")
    (run_dir.parent / "questions").write_text(str(questions.number))
    return run_dir


def test_each_step_is_reported_once_with_evaluations_and_checkpoints_when_due(whole: Path) -> None:
    events = read_events(whole)

    assert [event["step"] for event in events if event["type"] == "step"] == [1, 2, 3, 4]
    evaluations = [(event["step"], event["final"]) for event in events if event["type"] == "evaluation"]
    assert evaluations == [(0, False), (2, False), (4, True)]
    saved = [(event["step"], event["final"]) for event in events if event["type"] == "checkpoint"]
    assert saved == [(2, False), (4, True)]
    assert next(event for event in events if event["type"] == "started")["resume_step"] == 0


def test_a_step_reports_every_metric_that_the_dashboard_reads(whole: Path) -> None:
    step = next(event for event in read_events(whole) if event["type"] == "step")
    wanted = """reward/mean reward/std reward/groups_without_advantage reward/groups_all_zero reward/groups_all_one
        grader/error_share response/length_mean response/length_max response/truncated policy/entropy policy/loss
        policy/grad_norm policy/learning_rate policy/clip_low
        policy/clip_high policy/ratio_max mask/ppm mask/tokens mask/candidates mask/tau_h mask/responses_touched
        mask/grad_share mask/entropy_change_share mask/inert funnel/tokens funnel/positive_advantage funnel/low_p
        funnel/low_p_low_h sampler/logp_diff_mean sampler/logp_diff_max tokens/trained tokens/total
        speed/tokens_per_s speed/step_s speed/sample_s speed/grade_s speed/learn_s speed/publish_s memory/rss_mb"""
    cells = [f"{p}_p_{h}_h_{sign}" for p in ("low", "high") for h in ("low", "high") for sign in ("pos", "neg")]
    quadrants = [f"quadrant/{cell}/{value}" for cell in cells for value in ("count", "p", "entropy", "grad_norm")]

    assert {*wanted.split(), *quadrants} <= step["metrics"].keys()
    assert step["flags"] == []
    assert step["metrics"]["sampler/logp_diff_max"] < 1e-5


def test_the_same_seed_gives_the_same_curve_and_weights_bit_for_bit(whole: Path, tmp_path: Path) -> None:
    again = make_run_folder(tmp_path)
    run(again)

    assert metrics(again) == metrics(whole)
    assert final_tensors(again) == final_tensors(whole)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.17, 0.2, 0.4, 0.55, 0.75, 0.99])
def test_a_run_stopped_anywhere_and_resumed_equals_one_that_never_stopped(
    whole: Path, tmp_path: Path, share: float
) -> None:
    run_dir = make_run_folder(tmp_path)

    stopped = run(run_dir, StopAfter(int(share * int((whole.parent / "questions").read_text()))))
    finished = run(run_dir)

    assert stopped.reason == "stopped"
    assert finished == Outcome(4, "num_steps_reached")
    assert metrics(run_dir) == metrics(whole)
    assert final_tensors(run_dir) == final_tensors(whole)


def test_a_window_of_entropies_and_a_steered_threshold_survive_a_stop(tmp_path: Path) -> None:
    algorithm = {"kind": "stapo", "tau_p": 0.02, "entropy_window": 3, "target_ppm": 5000.0}
    whole, cut = (make_run_folder(tmp_path / name, algorithm=algorithm) for name in ("whole", "cut"))
    run(whole)

    run(cut, StopAfter(60))
    run(cut)

    assert metrics(cut) == metrics(whole)
    assert final_tensors(cut) == final_tensors(whole)


@pytest.mark.parametrize("merge", [False, True])
def test_adapters_alone_are_trained_saved_as_asked_and_resumed_to_the_bit(tmp_path: Path, merge: bool) -> None:
    whole, cut = (make_run_folder(tmp_path / name, lora={"rank": 4, "merge": merge}) for name in ("whole", "cut"))
    run(whole)
    run(cut, StopAfter(50))
    run(cut)

    folder = whole / "checkpoints" / "step-000004"
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "model")
    trained = base if merge else peft.PeftModel.from_pretrained(base, folder)
    if merge:
        trained = transformers.AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.arange(3, 9)[None]

    assert metrics(cut) == metrics(whole)
    assert final_tensors(cut) == final_tensors(whole)
    assert (folder / "model.safetensors").exists() is merge
    assert (folder / "adapter_model.safetensors").exists() is not merge
    assert {path.name for path in folder.iterdir()}.isdisjoint({"README.md"})
    before = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "model")(ids).logits
    assert not torch.allclose(trained(ids).logits, before, atol=1e-6)


def test_a_run_whose_newest_checkpoint_is_damaged_goes_on_from_the_one_before(whole: Path, tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path)
    run(run_dir)
    (run_dir / "checkpoints" / "step-000004" / "model.safetensors").write_bytes(b"")

    assert run(run_dir) == Outcome(4, "num_steps_reached")

    started = [event["resume_step"] for event in read_events(run_dir) if event["type"] == "started"]
    assert started == [0, 2]
    assert final_tensors(run_dir) == final_tensors(whole)


def test_recorded_rollouts_hold_every_token_with_the_three_conditions(whole: Path) -> None:
    table = pq.read_table(whole / "rollouts" / "step-000002.parquet").to_pydict()
    step = next(event for event in read_events(whole) if event["type"] == "step" and event["step"] == 2)

    names = [f"step-{number:06d}.parquet" for number in (1, 2, 3, 4)]
    assert sorted(path.name for path in (whole / "rollouts").iterdir()) == names
    assert len(table["token"]) == step["metrics"]["tokens/trained"]
    assert sum(table["masked"]) == step["metrics"]["mask/tokens"]
    for positive, low_p, low_h, masked in zip(
        table["positive_advantage"], table["low_p"], table["low_h"], table["masked"], strict=True
    ):
        assert masked == (positive and low_p and low_h)
    said = [event for event in read_events(whole) if event["type"] == "rollouts"]
    assert [(event["step"], event["file"]) for event in said] == [
        (number, f"rollouts/{name}") for number, name in enumerate(names, start=1)
    ]
    assert None not in table["p"]
    firsts = [place for place, position in enumerate(table["position"]) if position == 0]
    tokenizer = make_tokenizer()
    for start, stop in pairwise([*firsts, None]):
        assert tokenizer.decode(table["token_id"][start:stop], skip_special_tokens=True) == table["response"][start]
    assert set(table["finish"]) <= {"stop", "length"}


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_in_bfloat16_the_sampler_draws_from_a_copy_that_follows_the_policy(
    tmp_path: Path, lora: dict[str, Any] | None
) -> None:
    run_dir = make_run_folder(
        tmp_path, dtype="bfloat16", num_steps=3, lora=lora, optimizer={"learning_rate": 0.05, "warmup_steps": 0}
    )
    run(run_dir)

    gaps = [event["metrics"]["sampler/logp_diff_mean"] for event in read_events(run_dir) if event["type"] == "step"]
    assert all(0 < gap < 0.05 for gap in gaps)  # a copy left behind would be off by far more after such steps


def test_a_kl_term_and_several_passes_train_and_report_the_distance(tmp_path: Path) -> None:
    batch = {"num_prompts": 4, "group_size": 4, "num_passes": 2}
    algorithm = {"kind": "grpo", "kl_coefficient": 0.1}
    run_dir = make_run_folder(tmp_path, batch=batch, algorithm=algorithm, num_steps=2, evaluation={})
    run(run_dir)

    kl = [event["metrics"]["policy/kl"] for event in read_events(run_dir) if event["type"] == "step"]
    assert 0 <= kl[0] < kl[1]


def test_a_disk_that_refuses_the_records_costs_a_warning_and_not_the_run(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, num_steps=2, evaluation={})
    (run_dir / "rollouts").write_text("a file where a folder should be")

    assert run(run_dir) == Outcome(2, "num_steps_reached")

    warnings = [event["message"] for event in read_events(run_dir) if event["type"] == "warning"]
    assert any("could not be recorded" in message for message in warnings)


ALGORITHMS = [
    "grpo",
    "justrl",
    "entropy20",
    "dapo",
    "dr_grpo",
    "gspo",
    "cispo",
    "taco",
    "full_mask",
    "random",
    "negative",
]


@pytest.mark.parametrize("kind", ALGORITHMS)
def test_every_algorithm_trains_a_step(kind: str, tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path, algorithm={"kind": kind}, num_steps=1, evaluation={}, record_rollouts_every=0)

    assert run(run_dir) == Outcome(1, "num_steps_reached")


def refused(run_dir: Path) -> BadInput:
    with pytest.raises(BadInput) as caught:
        run(run_dir)
    return caught.value


def test_a_malformed_row_is_refused_with_its_line(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write('\n{"prompt": ')

    error = refused(run_dir)

    assert (error.param, error.code) == ("training_file", "invalid_data")
    assert "line 25" in str(error)


def test_a_row_without_the_field_that_the_grader_reads_is_refused(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path)
    (tmp_path / "valid.jsonl").write_text('{"prompt": "1+1="}\n')

    error = refused(run_dir)

    assert error.param == "validation_file"
    assert "'answer'" in str(error)


def test_more_tokens_than_the_model_can_take_are_refused_with_a_number_that_works(tmp_path: Path) -> None:
    batch = {"num_prompts": 4, "group_size": 4, "max_tokens_per_microbatch": 512}
    run_dir = make_run_folder(tmp_path, batch=batch, sampling={"max_prompt_tokens": 8, "max_response_tokens": 121})

    error = refused(run_dir)

    assert error.param == "train.sampling.max_response_tokens"
    assert "at most 120" in str(error)


def test_a_step_larger_than_the_file_is_refused(tmp_path: Path) -> None:
    assert refused(make_run_folder(tmp_path, batch={"num_prompts": 25})).param == "train.batch.num_prompts"


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    run_dir = make_run_folder(tmp_path)
    (tmp_path / "model" / "config.json").unlink()

    assert refused(run_dir).param == "model"
