"""A task's solution does what its words say, and its tests tell a right program from a wrong one."""

from __future__ import annotations

import ast
import random

from benchmarks.one_liners import PATTERN, WORDS, Task, draw_tasks, spoil
from stapo_core.config.graders.programs import CodeGrader
from stapo_core.graders import build_grader
from stapo_core.graders.score import Sample
from stapo_core.warmup import build_tokenizer


def test_a_task_is_read_in_the_order_of_its_words() -> None:
    task = Task("x", (("plus", "3"), ("times", "y"), ("max", "5")))
    assert (task.prompt, task.solution) == ("x plus 3, times y, max 5 = ", "max((x+3)*y,5)")
    assert (task.value(1, 2), task.value(-4, 2), task.value(2, 3)) == (8, 5, 15)
    assert Task("y", (("times", "x"), ("minus", "x"), ("min", "y"))).solution == "min(y*x-x,y)"


def test_every_solution_passes_the_tests_of_its_row_and_most_spoilt_ones_fail() -> None:
    rng = random.Random(7)
    tasks = draw_tasks(rng, 40)
    rows = [task.row(rng) for task in tasks]
    config = CodeGrader(type="code", input="f = lambda x, y: {{sample.output_text}}", program="whole_text")
    pool = build_grader(config, allows_user_code=True)
    try:
        right = pool.judge([Sample(row, task.solution) for row, task in zip(rows, tasks, strict=True)])
        spoilt = pool.judge([Sample(row, spoil(rng, task.solution)) for row, task in zip(rows, tasks, strict=True)])
    finally:
        pool.close()
    assert [score.value for score in right.total] == [1.0] * 40
    assert sum(score.value for score in spoilt.total) < 20


def test_tasks_are_distinct_and_avoid_what_is_held_out() -> None:
    held_out = frozenset(draw_tasks(random.Random(0), 50))
    tasks = draw_tasks(random.Random(0), 200, avoid=held_out)
    assert len(set(tasks)) == 200
    assert not held_out & set(tasks)


def test_every_word_of_tasks_and_solutions_is_a_token() -> None:
    tokenizer = build_tokenizer(WORDS, PATTERN)
    for task in draw_tasks(random.Random(1), 200):
        for text in (task.prompt, task.solution):
            token_ids = tokenizer(text)["input_ids"]
            assert tokenizer.unk_token_id not in token_ids
            assert tokenizer.decode(token_ids) == text
        assert isinstance(ast.parse(task.solution, mode="eval").body, ast.expr)
