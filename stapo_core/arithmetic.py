"""Three-digit additions with worked steps: the problems of the demo, and the examples its base model learns from.

Pure and free of torch; everything follows from the random stream handed in.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

ALPHABET = "0123456789+=,;"

_SMALLEST, _LARGEST = 100, 999


@dataclass(frozen=True, slots=True)
class Problem:
    """One addition."""

    left: int
    right: int

    @property
    def prompt(self) -> str:
        """`347+586=`"""
        return f"{self.left}+{self.right}="

    @property
    def answer(self) -> str:
        """`933`"""
        return str(self.left + self.right)

    @property
    def solution(self) -> str:
        """Column by column from the right with the carry, then the answer: `7+6=13,4+8+1=13,3+5+1=9;933`."""
        steps = []
        carry = 0
        for place in (1, 10, 100):
            left, right = self.left // place % 10, self.right // place % 10
            total = left + right + carry
            steps.append(f"{left}+{right}+{carry}={total}" if carry else f"{left}+{right}={total}")
            carry = total // 10
        return f"{','.join(steps)};{self.answer}"


def draw_problems(rng: random.Random, num_problems: int, *, avoid: frozenset[Problem] = frozenset()) -> list[Problem]:
    """Distinct problems, none of them in `avoid`. Asking for more than there are never ends."""
    found: dict[Problem, None] = {}
    while len(found) < num_problems:
        problem = Problem(rng.randint(_SMALLEST, _LARGEST), rng.randint(_SMALLEST, _LARGEST))
        if problem not in avoid:
            found[problem] = None
    return list(found)


def spoil(rng: random.Random, text: str) -> str:
    """The text with one character replaced by another of the alphabet."""
    place = rng.randrange(len(text))
    return text[:place] + rng.choice(ALPHABET.replace(text[place], "")) + text[place + 1 :]
