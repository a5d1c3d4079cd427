"""One-line programs over x and y: the tasks of `code_job`, and the examples its base model learns from. Pure.

A task says in words what is done to a value, one step after the other; a solution is an expression. Many expressions
solve a task, and the unit tests of a row accept them all.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

WORDS = ("x", "y", *"0123456789", "plus", "minus", "times", "max", "min", *" ,=()+-*")
PATTERN = r"[a-z]+|."

_SIGNS = {"plus": "+", "minus": "-", "times": "*"}
_OPERANDS = ("x", "y", *"23456789")
_NUM_STEPS, _NUM_TESTS, _LARGEST = 3, 4, 9


@dataclass(frozen=True, slots=True)
class Task:
    """A first value, and what is done to it."""

    first: str
    steps: tuple[tuple[str, str], ...]

    @property
    def prompt(self) -> str:
        """`x plus 3, times y, max 5 = `"""
        return f"{self.first} {', '.join(f'{verb} {operand}' for verb, operand in self.steps)} = "

    @property
    def solution(self) -> str:
        """`max((x+3)*y,5)`"""
        text, is_sum = self.first, False
        for verb, operand in self.steps:
            if verb in ("max", "min"):
                text, is_sum = f"{verb}({text},{operand})", False
            else:
                text = f"({text})" if verb == "times" and is_sum else text
                text, is_sum = f"{text}{_SIGNS[verb]}{operand}", verb != "times"
        return text

    def value(self, x: int, y: int) -> int:
        """What a program for this task must give, step by step."""
        known = {"x": x, "y": y}
        found = known[self.first]
        for verb, operand in self.steps:
            other = known[operand] if operand in known else int(operand)
            found = {
                "plus": found + other,
                "minus": found - other,
                "times": found * other,
                "max": max(found, other),
                "min": min(found, other),
            }[verb]
        return found

    def row(self, rng: random.Random) -> dict[str, object]:
        """A row of a data file: the prompt, and unit tests at points of their own."""
        points = [(rng.randint(-_LARGEST, _LARGEST), rng.randint(-_LARGEST, _LARGEST)) for _ in range(_NUM_TESTS)]
        return {"prompt": self.prompt, "tests": [f"assert f({x}, {y}) == {self.value(x, y)}" for x, y in points]}


def draw_tasks(rng: random.Random, num_tasks: int, *, avoid: frozenset[Task] = frozenset()) -> list[Task]:
    """Distinct tasks, none of them in `avoid`."""
    found: dict[Task, None] = {}
    while len(found) < num_tasks:
        verbs = rng.choices([*_SIGNS, "max", "min"], k=_NUM_STEPS)
        task = Task(rng.choice("xy"), tuple((verb, rng.choice(_OPERANDS)) for verb in verbs))
        if task not in avoid:
            found[task] = None
    return list(found)


def spoil(rng: random.Random, solution: str) -> str:
    """The solution with one character replaced by another."""
    place = rng.randrange(len(solution))
    return solution[:place] + rng.choice("xy+-*()23456789") + solution[place + 1 :]
