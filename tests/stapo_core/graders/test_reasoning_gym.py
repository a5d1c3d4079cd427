from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from stapo_core.config import ReasoningGymGrader
from stapo_core.data import iter_rows
from stapo_core.graders import item_fields
from stapo_core.graders.reasoning_gym import EVALUATED, ReasoningGymScorer, answer_of, is_plain
from stapo_core.graders.score import Pair

ESCAPES = (
    "__import__('os').system('touch /tmp/escaped')",
    "().__class__.__base__.__subclasses__()",
    "(lambda: 24)()",
    "[x for x in (1, 2)]",
    "open('/etc/passwd')",
    "eval('1')",
    "'__import__(\"os\")'",
    "x.diff",
    "x[0]",
    "f'{x}'",
    "24 if x else 24",
    "ｏｐｅｎ(1)",
)


@pytest.fixture(scope="module")
def scorer() -> Iterator[ReasoningGymScorer]:
    scorer = ReasoningGymScorer(ReasoningGymGrader(type="reasoning_gym"))
    yield scorer
    scorer.close()


def problem(task: str, index: int, **config: Any) -> str:
    return json.dumps({"task": task, "config": {"size": 9, "seed": 0} | config, "index": index})


# The first problems of seed 0: 1663 - 5242 - 9376 - 8961 + 7634 = -14282, and 4 - 1 - 7 = -4.
@pytest.mark.parametrize(
    ("text", "index", "reward"),
    [("-14282", 0, 1.0), ("I think <answer> -14282 </answer>.", 0, 1.0), ("-4", 1, 1.0), ("-4", 0, 0.0), ("", 1, 0.0)],
)
def test_the_tasks_own_scorer_judges(scorer: ReasoningGymScorer, text: str, index: int, reward: float) -> None:
    (score,) = scorer.score([Pair(text, problem("chain_sum", index))])
    assert (score.value, score.error) == (reward, None)


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("no json", "reference_unreadable"),
        ('{"task": "chain_sum"}', "reference_unreadable"),
        (problem("no_such_task", 0), "KeyError"),
        (problem("chain_sum", 0, min_term=1), "UnusableTask"),
        (problem("chain_sum", 0, min_terms=0), "AssertionError"),
    ],
)
def test_what_cannot_be_judged_is_counted_by_kind(scorer: ReasoningGymScorer, reference: str, kind: str) -> None:
    (score,) = scorer.score([Pair("1", reference)])
    assert (score.value, score.error) == (0.0, kind)


def test_a_verdict_that_takes_too_long_costs_its_deadline_and_nothing_else() -> None:
    scorer = ReasoningGymScorer(ReasoningGymGrader(type="reasoning_gym", timeout_s=1.0))
    hanging = Pair("9**9**9", problem("puzzle24", 0))
    scores = scorer.score([hanging, Pair("-14282", problem("chain_sum", 0))])
    scorer.close()
    assert scores[0].value == 0.0
    assert scores[0].error in ("timeout", "memory")
    assert scores[1].value == 1.0


@pytest.mark.parametrize("task", sorted(EVALUATED))
def test_the_tasks_own_answers_are_right_where_answers_are_evaluated(
    scorer: ReasoningGymScorer, task: str, tmp_path: Path
) -> None:
    """But those that give the integral back as it was: to take these would reward whoever copies the question."""
    path = tmp_path / "source.jsonl"
    path.write_text(json.dumps({"source": "reasoning_gym", "task": task, "config": {"size": 9, "seed": 0}}))
    rows = [row for _, row in iter_rows(path) if "Integral" not in row["answer"]]
    assert len(rows) >= 8
    scores = scorer.score([Pair(row["answer"], json.dumps(row["reasoning_gym"])) for row in rows])
    assert [(score.value, score.error) for score in scores] == [(1.0, None)] * len(rows)


def test_the_name_of_the_right_answer_is_not_evaluated(scorer: ReasoningGymScorer) -> None:
    (score,) = scorer.score([Pair("oracle_answer", problem("string_insertion", 0))])
    assert (score.value, score.error) == (0.0, None)


@pytest.mark.parametrize("answer", ESCAPES)
def test_an_answer_that_could_run_is_wrong_and_not_evaluated(scorer: ReasoningGymScorer, answer: str) -> None:
    assert not is_plain(answer)
    (score,) = scorer.score([Pair(answer, problem("puzzle24", 0))])
    assert (score.value, score.error) == (0.0, None)
    assert not Path("/tmp/escaped").exists()  # noqa: S108  # what the first of them would make


@pytest.mark.parametrize("answer", ["24", "(3 + 5) * (8 - 5)", "-cos(x)**2/2 + C", "[['_', 'Q'], ['Q', '_']]", "2.5*y"])
def test_numbers_lists_and_arithmetic_are_plain(answer: str) -> None:
    assert is_plain(answer)


def test_no_other_task_evaluates_what_it_is_given() -> None:
    """Reads the package's own code, so that a later version with one more such task does not slip in."""
    spec = find_spec("reasoning_gym")
    assert spec is not None
    assert spec.origin is not None
    calls = re.compile(r"(?<!literal_)\beval\(|\bparse_expr\(\s*answer|\bsympify\(|\bexec\(|\bS\(answer")
    found = {path.stem for path in Path(spec.origin).parent.rglob("*.py") if calls.search(path.read_text())}
    makes_problems_alone = {
        *("basic_arithmetic", "bitwise_arithmetic", "generators_00_49", "generators_50_99", "number_sorting"),
        "codeio",  # refused as a source: it runs programs that came with it
    }
    assert found - makes_problems_alone == EVALUATED


def test_the_answer_is_what_the_last_tags_hold() -> None:
    assert answer_of("<answer>1</answer> no, <answer>\n2\n</answer>") == "2"
    assert answer_of(" 3 <answer>") == "3 <answer>"


def test_rows_must_come_from_the_source() -> None:
    assert item_fields(ReasoningGymGrader(type="reasoning_gym")) == {"reasoning_gym"}
