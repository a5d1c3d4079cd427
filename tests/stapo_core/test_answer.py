"""The answering command on a real model folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stapo_core.answer import main
from stapo_core.warmup import build_model, build_tokenizer


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    build_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"{n}+1="}) + "\n" for n in range(100, 105)))
    return path


def test_every_response_is_one_json_line(
    model_folder: Path, problems: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(
        [str(model_folder), "--input", str(problems), "--num-samples", "2", "--max-tokens", "5", "--limit", "3"]
    )
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert status == 0
    assert [line["prompt"] for line in lines] == ["100+1=", "100+1=", "101+1=", "101+1=", "102+1=", "102+1="]
    assert all(set(line) == {"prompt", "response", "finish"} for line in lines)
    assert all(len(line["response"]) <= 5 for line in lines)


def test_a_cold_model_answers_the_same_each_time(
    model_folder: Path, problems: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(model_folder), "--input", str(problems), "--num-samples", "3", "--temperature", "1e-6"]
    main(arguments)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len({(line["prompt"], line["response"]) for line in lines}) == 5


@pytest.mark.parametrize("content", [None, "{}", "{"])
def test_a_folder_without_a_model_is_one_sentence_and_status_2(
    tmp_path: Path, problems: Path, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    folder = tmp_path / "no-model"
    folder.mkdir()
    if content is not None:
        (folder / "config.json").write_text(content)
    status = main([str(folder), "--input", str(problems)])
    output = capsys.readouterr()
    assert (status, output.out) == (2, "")
    assert str(folder) in output.err
    assert len(output.err.splitlines()) == 1


def test_pickled_weights_are_not_loaded(
    model_folder: Path, tmp_path: Path, problems: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(model_folder, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert main([str(folder), "--input", str(problems)]) == 2
    assert "safetensors" in capsys.readouterr().err


def test_a_bad_row_names_its_line(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "1"}\n{"prompt": }\n')
    assert main([str(model_folder), "--input", str(path)]) == 2
    assert capsys.readouterr().err.startswith("line 2: not valid JSON")
