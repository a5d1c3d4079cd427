"""The base model's making, for real but short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from stapo_core.data import check_rows, read_rows
from stapo_core.warmup import Outcome, build_model, build_tokenizer, main, make_base


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome, list[float]]:
    folder = tmp_path_factory.mktemp("warmup") / "base"
    losses: list[float] = []
    outcome = make_base(folder, seed=3, steps=12, on_step=lambda _, loss: losses.append(loss))
    return folder, outcome, losses


def test_the_loss_falls_from_that_of_a_guess(made: tuple[Path, Outcome, list[float]]) -> None:
    _, outcome, losses = made
    assert losses[0] == pytest.approx(2.83, abs=0.3)  # ln 17: every token of the vocabulary alike
    assert losses[-1] < losses[0] - 0.5
    assert outcome.loss == pytest.approx(sum(losses[-10:]) / 10)


def test_the_folder_is_a_model_that_transformers_loads(made: tuple[Path, Outcome, list[float]]) -> None:
    folder, outcome, _ = made
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    assert sum(parameter.numel() for parameter in model.parameters()) == outcome.num_parameters == 790_016
    ids = tokenizer("347+586=")["input_ids"]
    assert len(ids) == 8
    assert tokenizer.decode([*ids, tokenizer.eos_token_id], skip_special_tokens=True) == "347+586="
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id


def test_the_data_are_right_and_the_halves_disjoint(made: tuple[Path, Outcome, list[float]]) -> None:
    folder, _, _ = made
    train, held_out = folder / "train.jsonl", folder / "validation.jsonl"
    assert (check_rows(train, {"answer"}).num_rows, check_rows(held_out, {"answer"}).num_rows) == (2000, 200)
    rows = [*read_rows(train), *read_rows(held_out)]
    assert len({row["prompt"] for row in rows}) == 2200
    for row in rows:
        left, right = row["prompt"].removesuffix("=").split("+")
        assert int(left) + int(right) == int(row["answer"])


def test_the_outcome_is_kept_beside_the_model(made: tuple[Path, Outcome, list[float]]) -> None:
    folder, outcome, _ = made
    kept = json.loads((folder / "warmup.json").read_text())
    assert (kept["seed"], kept["steps"], kept["held_out_accuracy"]) == (3, 12, outcome.held_out_accuracy)
    assert sorted(path.name for path in folder.parent.iterdir()) == ["base"]


def test_the_same_seed_makes_the_same_model(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_base(tmp_path / name, seed=5, steps=2)
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert (tmp_path / "a" / "train.jsonl").read_text() == (tmp_path / "b" / "train.jsonl").read_text()


def test_a_folder_that_exists_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine").write_text("kept")
    assert main([str(tmp_path)]) == 2
    assert "exists" in capsys.readouterr().err
    assert (tmp_path / "mine").read_text() == "kept"


def test_an_unknown_character_is_a_token_of_its_own() -> None:
    tokenizer = build_tokenizer()
    assert tokenizer("1é2")["input_ids"] == [tokenizer.convert_tokens_to_ids(token) for token in ("1", "<unk>", "2")]
    assert build_model(tokenizer).config.vocab_size == len(tokenizer) == 17
