from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from stapo_core.config.sources import TASKS, ReasoningGymSource
from stapo_core.data import DataError, check_rows, find_source, read_rows


def write(path: Path, **changes: Any) -> Path:
    source = {"source": "reasoning_gym", "task": "chain_sum", "config": {"size": 4, "seed": 0}} | changes
    path.write_text(json.dumps(source) + "\n")
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "source.jsonl"


def refusal(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_rows(path)
    return str(caught.value)


def test_a_line_that_names_a_generator_stands_for_its_problems(path: Path) -> None:
    first, second, *_ = rows = read_rows(write(path))
    assert len(rows) == 4
    assert second["prompt"] == "State the final answer to the following arithmetic problem: 4 - 1 - 7 ="
    assert second["answer"] == str(4 - 1 - 7)
    assert first["reasoning_gym"] == {"task": "chain_sum", "config": {"size": 4, "seed": 0}, "index": 0}


def test_the_same_seed_makes_the_same_problems_and_another_seed_others(path: Path) -> None:
    # This task iterates over sets, whose order Python draws anew in every process unless it is told not to.
    first, again, other = (read_rows(write(path, task="ransom_note", config={"size": 6, "seed": n})) for n in (1, 1, 2))
    assert again == first
    assert other != first


def test_problems_are_counted_without_making_them_all(path: Path) -> None:
    write(path, config={"size": 100_000})
    assert check_rows(path, ("answer", "reasoning_gym")).num_rows == 100_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "chain_sums"}, "line 1: the source cannot be used: task: reasoning-gym has no task 'chain_sums'"),
        ({"task": "codeio"}, "runs programs that came with it"),
        ({"task": "composite", "config": {"datasets": []}}, "mixes other tasks, which one file cannot describe"),
        ({"config": {"size": 0}}, "size 0 is no number of problems from 1 to 100000"),
        ({"config": {"seed": -1}}, "seed -1 is no whole number"),
        ({"size": 3}, "size: there is no such field"),
        ({"config": {"min_term": 3}}, "the task 'chain_sum' has no setting 'min_term'; did you mean 'min_terms'?"),
        ({"config": {"min_terms": 0}}, "refuses its config: min_terms must be positive"),
        ({"task": "zebra_puzzles"}, "this task needs the package pycosat; install it"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_used_says_why(path: Path, changes: dict[str, Any], words: str) -> None:
    assert words in refusal(write(path, **changes))


def test_a_source_stands_alone_in_its_file(path: Path) -> None:
    write(path)
    with path.open("a") as file:
        file.write('\n{"prompt": "1+1="}\n')
    assert refusal(path) == "line 3: a source stands alone in its file; put other rows into another file"


def test_rows_may_have_a_field_called_source(path: Path) -> None:
    path.write_text('{"prompt": "1+1=", "source": "a book"}\n')
    assert read_rows(path) == [{"prompt": "1+1=", "source": "a book"}]
    assert find_source(path) is None


def test_the_tasks_are_those_of_the_package() -> None:
    from stapo_core.data.reasoning_gym import make_task

    make_task("chain_sum", {"size": 1, "seed": 0})
    from reasoning_gym.factory import DATASETS

    assert set(TASKS) == set(DATASETS) - {"codeio", "composite"}


def test_a_config_takes_a_generator_in_place_of_a_file() -> None:
    source = ReasoningGymSource.model_validate({"source": "reasoning_gym", "task": "chain_sum"})
    assert (source.size, source.resolved) == (500, {"size": 500, "seed": 0})
    with pytest.raises(ValidationError, match="such as 'chain_sum'"):
        ReasoningGymSource.model_validate({"source": "reasoning_gym", "task": "1234"})
